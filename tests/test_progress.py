import pytest

from qaq import progress
from qaq.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    return Clock


def test_without_a_terminal_there_is_a_line_every_half_minute_with_rates_and_time_left(
    clock, capsys
):
    with Progress("scoring", 400, "rows", done=100, rank=3) as shown:
        for _ in range(10):  # ten updates, ten seconds apart
            clock.now += 10
            shown.update(10, tokens=2500)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0] == (
        "scoring [rank 3]: 130/400 rows, 1.0 rows/s, 250 tokens/s, 270 s left"
    )  # fmt: skip
    assert lines[2] == "scoring [rank 3]: 190/400 rows, 1.0 rows/s, 250 tokens/s, 210 s left"


def test_the_time_left_is_unknown_before_anything_is_done(clock, capsys):
    with Progress("scoring", 4, "rows") as shown:
        clock.now += 31
        shown.update(0)
    assert "time left unknown" in capsys.readouterr().err
