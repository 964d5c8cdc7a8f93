"""The times in the README's table of experiments are those of `qaq plan`."""

import re
from pathlib import Path

import pytest

from qaq.plan.planning import examine
from qaq.plan.sizes import Known
from qaq.run.compose import compose
from qaq.run.fingerprints import tolerant
from qaq.run.pipeline import Run

README = Path(__file__).parents[2] / "README.md"
UNITS = {"min": 60, "h": 3600, "d": 86400}
COLUMNS = {"2cores": ["scale=small"], "h200": ["scale=paper"]}
ROW = re.compile(r"^\| (\[`.*?) \| .* \| ([^|]*) \| ([^|]*) \|$", re.M)


def written() -> dict[tuple[str, str], float]:
    """Seconds by experiment and device, as the table has them."""
    found = {}
    table = README.read_text(encoding="utf-8").split("## Experiments")[1].split("\n## ")[0]
    for names, *columns in ROW.findall(table):
        for device, times in zip(COLUMNS, columns, strict=True):
            for name, time in zip(re.findall(r"\[`(\w+)`\]", names), times.split(","), strict=True):
                number, unit = time.split()
                found[name, device] = float(number) * UNITS[unit]
    return found


def test_every_experiment_but_the_quickstart_has_its_times() -> None:
    options = {f.stem for f in (README.parent / "conf" / "experiment").glob("*.yaml")}
    others = {"quickstart", "coder_noisy", "coder_pilot"}  # the latter need `make coder`
    assert {name for name, _ in written()} == options - others
    assert len(written()) == 2 * len(options - others)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({name for name, _ in written()}))
def test_the_times_are_those_that_plan_says(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fixed = [f"models.{role}.dtype=bfloat16" for role in ("strong", "weak", "target")]
    fixed += [f"runtime.store={tmp_path}", "runtime.judge_workers=2"]
    for device, scale in COLUMNS.items():
        more = scale
        if name.startswith("small_code"):
            pool = request.getfixturevalue("shared_data") / "instruct"
            more = [f"data.path={pool / 'gpteacher_codegen_instruct.json'}"]
        with tolerant():
            config = compose([f"experiment={name}", *more, *fixed])
            planned = examine([Run(config)], Known(tokens=None, rows=None), device, None)
        seconds = sum(one.work.seconds for one in planned if one.work)
        assert written()[name, device] == pytest.approx(seconds, rel=0.12)
