import pytest

from qaq.host import progress
from qaq.host.progress import Progress


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
    shown = Progress("scoring", 400, "rows", done=100, rank=0, ranks=4)
    for _ in range(10):  # ten updates, ten seconds apart
        clock.now += 10
        shown.update(10, tokens=2500)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    start = "scoring [rank 0 of 4]: "
    assert lines[0] == start + "130/400 rows, 1.0 rows/s, 250 tokens/s, 4.5 min left"
    assert lines[2] == start + "190/400 rows, 1.0 rows/s, 250 tokens/s, 3.5 min left"


def test_long_work_ends_with_a_line_that_says_how_long_it_took_and_short_work_in_silence(
    clock, capsys
):
    with Progress("scoring", 40, "rows") as shown:
        clock.now += 29
        shown.update(40, tokens=10)
    assert capsys.readouterr().err == ""
    with Progress("scoring", 40, "rows") as shown:
        clock.now += 29
        shown.update(20, tokens=1000)
        clock.now += 71
        shown.update(20, tokens=1000)
    *_, last = capsys.readouterr().err.splitlines()
    assert last == "scoring: 40/40 rows, 0.4 rows/s, 20 tokens/s, took 1.7 min"


def test_the_time_left_is_unknown_before_anything_is_done(clock, capsys):
    with Progress("scoring", 4, "rows") as shown:
        clock.now += 31
        shown.update(0)
    assert "time left unknown" in capsys.readouterr().err
