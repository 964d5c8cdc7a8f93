"""Energy counters: what is read, what is subtracted, what a machine without them gives."""

from pathlib import Path

import pytest

from qaq.host import energy


def rapl(folder: Path, name: str, microjoules: int, span: int = 262_143_328_850) -> None:
    zone = folder / name
    zone.mkdir(exist_ok=True)
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text(f"{span}\n")


def test_packages_of_the_processor_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    for name, now in (("intel-rapl:0", 1_000_000), ("intel-rapl:1", 5_000_000)):
        rapl(tmp_path, name, now)
    rapl(tmp_path, "intel-rapl:0:0", 900_000)  # the cores inside package 0
    before = energy.counters(tmp_path)
    for name, now in (("intel-rapl:0", 3_500_000), ("intel-rapl:1", 5_250_000)):
        rapl(tmp_path, name, now)
    rapl(tmp_path, "intel-rapl:0:0", 3_000_000)
    assert energy.joules(before, energy.counters(tmp_path)) == pytest.approx(2.75)


def test_a_counter_that_wrapped_goes_on_from_its_range() -> None:
    assert energy.joules({"package": (90.0, 100.0)}, {"package": (15.0, 100.0)}) == 25.0


def test_a_machine_without_counters_gives_no_number(tmp_path: Path) -> None:
    nothing = energy._processors(tmp_path)
    assert nothing == {}
    assert energy.joules(nothing, nothing) is None


@pytest.mark.parametrize(
    ("allowed", "seen"), [(None, True), ("0,1", True), ("1", False), ("GPU-ab", True), ("", False)]
)
def test_only_cards_that_the_process_may_use_are_counted(
    monkeypatch: pytest.MonkeyPatch, allowed: str | None, seen: bool
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if allowed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    assert energy._visible(0, "GPU-ab12-34") is seen
