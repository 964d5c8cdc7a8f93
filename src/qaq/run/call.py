"""`qaq.run(overrides)`: an experiment from Python, and its finished report as tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qaq.host.errors import StageError, UserError
from qaq.store.manifest import Artifact
from qaq.store.store import Store
from qaq.store.tables import read_json

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Finished:
    """A finished experiment.

    Attributes:
        folder: the report, with `index.html`, `summary.txt`, `results.json` and figures.
        summary: what `qaq report` prints.
        results: `results.json` as plain values.
    """

    folder: Path
    summary: str
    results: dict[str, Any]

    @classmethod
    def of(cls, folder: str | Path) -> "Finished":
        """The report that lies in a folder, such as one of the committed `results/`."""
        folder = Path(folder)
        summary = (folder / "summary.txt").read_text(encoding="utf-8").rstrip()
        return cls(folder, summary, read_json(folder / "results.json"))

    @property
    def page(self) -> Path:
        """The page."""
        return self.folder / "index.html"

    def table(self, title: str) -> "pd.DataFrame":
        """A study's table by its title: values, and those with an interval also `low` and `high`.

        Raises:
            UserError: there is no such table.
        """
        import pandas as pd

        tables = {str(t["title"]): t for t in self.results.get("tables", ())}
        if title not in tables:
            raise UserError(
                f"there is no table {title!r}; there are: {', '.join(tables) or 'none'}"
            )
        found = tables[title]
        rows: list[dict[str, Any]] = []
        for cells in found["rows"]:
            row: dict[str, Any] = {}
            for name, cell in zip(found["columns"], cells, strict=True):
                row[name] = cell["value"]
                if cell["low"] is not None:
                    row |= {f"{name}: low": cell["low"], f"{name}: high": cell["high"]}
            rows.append(row)
        return pd.DataFrame(rows)

    def _repr_markdown_(self) -> str:
        """How a notebook shows it."""
        return f"```text\n{self.summary}\n```"


def run(overrides: str | Sequence[str], say: Callable[[str], None] | None = print) -> Finished:
    """Make what is missing of an experiment; as `qaq run` does.

    Args:
        overrides: one, or several, such as `["experiment=quickstart", "ratio=0.1"]`.
        say: takes the lines that a terminal would show; None for silence.

    Raises:
        ConfigError: with every fault of the overrides.
        StageError: a stage failed; what was made before is kept.
    """
    from qaq.host import plugins
    from qaq.run.compose import compose
    from qaq.run.experiment import execute
    from qaq.run.pipeline import Run

    plugins.start(None)
    lines: list[str] = []

    def both(text: str) -> None:
        lines.append(text)
        if say is not None:
            say(text)

    job = Run(compose([overrides] if isinstance(overrides, str) else list(overrides)))
    code = execute(job, both, None)
    last = job.stages[-1]
    report: Artifact | None = Store(job.config.runtime.store).find(last.kind, last.key)
    if code or report is None:
        raise StageError(lines[-1].strip(), code or 1)
    return Finished.of(report.path)
