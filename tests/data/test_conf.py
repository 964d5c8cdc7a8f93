from pathlib import Path

import pytest
from omegaconf import OmegaConf
from pydantic import TypeAdapter

from qaq.data.config import CONTROLS, DataConfig, NoiseConfig
from qaq.data.defects import DAMAGES
from qaq.run.compose import compose

CONF = Path(__file__).parents[2] / "conf"
SAMPLE = {"limit", "sample_seed"}
FIELDS = {"stdlib": SAMPLE, "coders": SAMPLE, "hub": SAMPLE | {"hub_id", "revision", "split"}}
FIELDS["synthetic"] = {"synthesis"}
FIELDS |= {source: SAMPLE | {"path"} for source in ("csv", "json", "jsonl", "parquet")}


def tree(path):
    return OmegaConf.to_container(OmegaConf.load(path))


@pytest.mark.parametrize("path", sorted((CONF / "data").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_data_preset_fits_the_schema_and_names_each_field_that_can_be_overridden(path):
    values = tree(path)
    if "defaults" in values:  # Hydra puts its parts together
        config = compose([f"data={path.stem}"]).data
        values = {name: value for name, value in values.items() if name != "defaults"}
    else:
        config = TypeAdapter(DataConfig).validate_python(values)
    assert config.name == path.stem
    assert set(values) == {"name", "source"} | FIELDS[config.source]


@pytest.mark.parametrize("path", sorted((CONF / "noise").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_noise_preset_fits_the_schema(path):
    config = TypeAdapter(NoiseConfig).validate_python(tree(path))
    assert config.name == path.stem
    assert sum(config.shares.values()) <= 0.5


def test_the_presets_plant_what_they_promise():
    assert tree(CONF / "noise/none.yaml")["shares"] == {}
    planted = tree(CONF / "noise/planted.yaml")["shares"]
    assert len(planted) == 5 and set(planted.values()) == {0.06}
    every = [set(tree(path)["shares"]) for path in (CONF / "noise").glob("*.yaml")]
    assert set.union(*every) == set(DAMAGES)
    controlled = set(tree(CONF / "noise/controlled.yaml")["shares"])
    assert {CONTROLS[kind] for kind in controlled & set(CONTROLS)} <= controlled
