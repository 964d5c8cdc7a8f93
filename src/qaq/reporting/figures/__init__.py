"""The figures of the report: pure drawings of what its tables hold.

Each function takes the collected tables and the results and returns a figure and its caption, or
None where there is nothing to draw.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from qaq.reporting.collect import Collected
from qaq.reporting.figures import arms, pool
from qaq.reporting.figures.style import STYLE, Drawing, save
from qaq.reporting.schema import Results

FIGURES: Mapping[str, Callable[[Collected, Results], tuple[Figure, str] | None]] = {
    "quality": arms.quality,
    "differences": arms.differences,
    "retention": pool.retention,
    "rmi_map": pool.rmi_map,
    "roc": pool.roc,
    "overlap": pool.overlap,
    "cost": arms.cost,
    "loss": arms.loss,
}


def draw_all(data: Collected, results: Results, folder: Path) -> dict[str, Drawing]:
    """Draw every figure that has data into `folder`; returns them by name."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    with matplotlib.rc_context(STYLE):
        for name, draw in FIGURES.items():
            drawn = draw(data, results)
            if drawn is not None:
                made[name] = save(name, *drawn, folder)
    return made
