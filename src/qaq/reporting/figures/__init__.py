"""The figures of the report: pure drawings of what its tables hold.

Each function takes the collected tables and the results and returns a figure and its caption, or
None where there is nothing to draw.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib

from qaq.page.drawing import STYLE, Drawing, Drawn, draw
from qaq.reporting.collect import Collected
from qaq.reporting.figures import arms, pool
from qaq.reporting.schema import Results

FIGURES: Mapping[str, Callable[[Collected, Results], Drawn | None]] = {
    "quality": arms.quality,
    "differences": arms.differences,
    "kept": pool.kept,
    "retention": pool.retention,
    "rmi_map": pool.rmi_map,
    "roc": pool.roc,
    "overlap": pool.overlap,
    "cost": arms.cost,
    "loss": arms.loss,
}


def draw_all(data: Collected, results: Results, folder: Path) -> dict[str, Drawing]:
    """Draw every figure that has data into `folder`; returns them by name."""
    with matplotlib.rc_context(STYLE):
        drawn = {name: figure(data, results) for name, figure in FIGURES.items()}
    return draw({name: one for name, one in drawn.items() if one is not None}, folder)
