"""The local record of a stage: one JSON object a line, always written, the truth.

Weights & Biases shows a copy of it (`qaq.tracking.mirror`). Lines are flushed as they come, so a
killed stage keeps what it measured; a resumed stage appends.
"""

import json
import time
from pathlib import Path

from qaq.store.tables import cut_torn_line


class Record:
    """Appends measurements to `path`.

    `step` lines are points of a curve (training steps, shards); lines without a step are facts
    about the whole stage.
    """

    def __init__(self, path: Path):
        cut_torn_line(path)
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int | None = None, **values: float | int | str | bool | None) -> None:
        """Append one line; non-finite numbers are written as strings, since JSON has none."""
        line: dict[str, object] = {"time": round(time.time(), 3)}
        if step is not None:
            line["step"] = step
        for name, value in values.items():
            finite = not isinstance(value, float) or value - value == 0
            line[name] = value if finite else str(value)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
