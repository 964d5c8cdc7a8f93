"""Progress of long work: a bar on a terminal, a line every half minute elsewhere."""

import sys
import time

from tqdm import tqdm

LINE_EVERY = 30.0  # seconds


class Progress:
    """Counts items and tokens; says rates and the time left. Use as a context manager.

    `done` items of `total` were finished before (a resumed run), so rates leave them out. Where
    several `ranks` work, each counts its own share.
    """

    def __init__(
        self, label: str, total: int, unit: str, done: int = 0, rank: int = 0, ranks: int = 1
    ):
        self.label = label if ranks == 1 else f"{label} [rank {rank} of {ranks}]"
        self.total, self.unit = total, unit
        self.count, self.tokens, self.start_count = done, 0, done
        self.started = self.last_line = time.monotonic()
        terminal = sys.stderr.isatty() and rank == 0
        self.bar = (
            tqdm(total=total, initial=done, desc=self.label, unit=f" {unit}", leave=False)
            if terminal
            else None
        )

    def update(self, items: int, tokens: int = 0) -> None:
        """Count finished work and show it when it is time to."""
        self.count += items
        self.tokens += tokens
        seconds = time.monotonic() - self.started
        if self.bar is not None:
            self.bar.update(items)
            self.bar.set_postfix_str(f"{self.tokens / max(seconds, 1e-9):.0f} tokens/s")
        elif time.monotonic() - self.last_line >= LINE_EVERY:
            self.last_line = time.monotonic()
            print(self.line(seconds), file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """The progress as one line of text."""
        rate = (self.count - self.start_count) / max(seconds, 1e-9)
        left = (self.total - self.count) / rate if rate > 0 else float("inf")
        wait = f"{duration(left)} left" if left < float("inf") else "time left unknown"
        if self.count >= self.total:
            wait = f"took {duration(seconds)}"
        return (
            f"{self.label}: {self.count}/{self.total} {self.unit}, {rate:.1f} {self.unit}/s, "
            f"{self.tokens / max(seconds, 1e-9):.0f} tokens/s, {wait}"
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        seconds = time.monotonic() - self.started
        if self.bar is not None:
            self.bar.close()
        elif kind is None and seconds >= LINE_EVERY:
            print(self.line(seconds), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
