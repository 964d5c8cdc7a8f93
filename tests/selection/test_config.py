"""Every selector that `conf/` offers is one the code knows, and says what it needs."""

from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from qaq.selection.config import SelectorConfig
from qaq.selection.rules import RULES

FOLDER = Path(__file__).parents[2] / "conf" / "selector"
FILES = sorted(FOLDER.glob("*.yaml"))


def parse(tree):
    return TypeAdapter(SelectorConfig).validate_python(tree)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_selector_file_is_valid_and_its_rule_exists(file):
    selector = parse(yaml.safe_load(file.read_text()))
    assert selector.method in RULES
    assert set(selector.needs) <= {"strong", "weak", "asked", "embeddings", "queries", "overlaps"}
    assert file.read_text().startswith("# ")


def test_every_rule_has_a_file():
    methods = {yaml.safe_load(file.read_text())["method"] for file in FILES}
    assert methods == set(RULES)


def test_what_does_not_depend_on_the_ratio_says_so():
    fixed = {f.stem for f in FILES if not parse(yaml.safe_load(f.read_text())).uses_ratio}
    bands = {"rmi_band_0_25", "rmi_band_25_50", "rmi_band_50_75", "rmi_band_75_100"}
    assert fixed == {"full", "diff_high_threshold", *bands}


@pytest.mark.parametrize(
    ("tree", "fault"),
    [
        ({"method": "rmi_bend"}, "rmi_bend"),
        ({"method": "rmi_band", "centre": 0.5}, "centre"),
        ({"method": "rmi_band", "low": 0.5}, "give both or neither"),
        ({"method": "rmi_band", "low": 0.75, "high": 0.5}, "low must be below high"),
        ({"method": "rmi_band", "center": 1.5}, "less than or equal to 1"),
        ({"method": "diff_high", "bins": 0}, "greater than or equal to 1"),
    ],
)
def test_a_misspelt_or_impossible_selector_is_named(tree, fault):
    with pytest.raises(ValidationError, match=fault):
        parse(tree)
