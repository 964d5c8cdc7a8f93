"""Which comparisons a report tests, and against what."""

from collections.abc import Callable

from qaq.evidence.config import PrimaryConfig
from qaq.reporting.config import ReportArm
from qaq.reporting.family import baselines, contrasts
from qaq.store.jobs import Job

from .conftest import SMALL, World, assembled

FULL = ReportArm(name="full", method="full", ratio=None, seeds=(1,))
RANDOM = ReportArm(name="random", method="random", ratio=0.25, seeds=(1,))
IFD = ReportArm(name="ifd", method="ifd_cherry", ratio=0.25, seeds=(1,))


def test_an_assay_that_is_no_default_comparison_is_tested_once() -> None:
    arms = (FULL, RANDOM, IFD)
    primary = PrimaryConfig(assay=("full", "random"))
    assert contrasts(primary, arms) == [("full", "random"), ("ifd", "full"), ("ifd", "random")]
    assert sorted(contrasts(PrimaryConfig(assay=("ifd", "full")), arms)) == sorted(
        contrasts(PrimaryConfig(), arms)
    )


def test_two_arms_by_chance_of_one_ratio_lose_no_comparison() -> None:
    steps = ReportArm(name="steps", method="random", ratio=0.25, seeds=(1,), recipe="b")
    later = ReportArm(name="ifd_b", method="ifd_cherry", ratio=0.25, seeds=(1,), recipe="b")
    arms = (FULL, RANDOM, IFD, steps, later)
    assert baselines(IFD, arms) == ["full", "random"]
    assert baselines(later, arms) == ["full", "steps"]  # no arm on all rows has its recipe


def with_primary(told: Job, **primary: object) -> Job:
    return Job(**{**vars(told), "config": told.config | {"primary": primary}})


def test_what_the_assay_itself_shows_is_kept_and_said(told: Job) -> None:
    pairs = [["random", "full"], ["rmi_band", "random"]]
    found = assembled(with_primary(told, comparisons=pairs, assay=pairs[0]))
    tests = {c.arm: (c.finding, c.reason) for c in found.comparisons if c.family == "primary"}
    assert tests["random"] == ("worse", "p corrected is below 0.05")
    assert tests["rmi_band"][0] == "no difference shown"
    assert tests["rmi_band"][1].startswith("no assay sensitivity: random is not shown")
    assert found.verdict[0].startswith("No assay sensitivity: random is not shown to be better")
    assert "random is worse than full by" in found.verdict[1]
    assert "rmi_band" not in found.verdict[1]


def test_arms_are_as_good_as_all_rows_of_their_own_recipe(
    world: Callable[..., World],
) -> None:
    methods = {"full": "full", "ifd": "ifd_cherry", "full_b": "full", "ifd_b": "ifd_cherry"}
    job = world(**SMALL | {"seeds": (1,)}, methods=methods, scored=False).build()
    for arm in job.config["arms"]:
        arm["recipe"] = "b" if arm["name"].endswith("_b") else ""
    found = assembled(job)
    pairs = {(c.arm, c.baseline) for c in found.comparisons if c.family == "primary"}
    assert pairs == {("ifd", "full"), ("ifd_b", "full_b")}
    assert found.loss is not None
    assert [(a.arm, a.baseline) for a in found.loss.arms] == [("ifd", "full")]
    assert "Only arms trained as full are held against all rows, not ifd_b." in found.notes
