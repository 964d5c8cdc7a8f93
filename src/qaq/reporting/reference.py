"""The paper's values beside ours, cell by cell.

The file has one row per row of a published table: `table`, `row`, `data_share`, and percentages
per suite (`humaneval`, `humaneval_plus`, `mbpp`, `mbpp_plus`). An optional column `arm` names the
arm of this experiment; without it a row belongs to the arm of its own name, or to the one its
usual name stands for, if the share of the data is the same too.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from qaq.reporting.analysis import UNTUNED
from qaq.reporting.schema import ArmResult, ReferenceCell
from qaq.reporting.tables.arms import of_suite

# Names in the published tables, and what an arm of the same rule is called here.
ALIASES = {
    "rmi_band_50_75": "rmi_band",
    "ifd": "ifd_cherry",
    "rds_plus": "rds",
    "qaq": "rmi_band",
    "deepseek_coder_6_7b_base": UNTUNED,
}
COLUMNS: tuple[tuple[str, str, Literal["base", "plus"]], ...] = (
    ("humaneval", "humaneval", "base"),
    ("humaneval_plus", "humaneval", "plus"),
    ("mbpp", "mbpp", "base"),
    ("mbpp_plus", "mbpp", "plus"),
)


def reference_cells(
    table: pd.DataFrame | None, arms: Sequence[ArmResult]
) -> tuple[ReferenceCell, ...]:
    """One cell per published number; `ours` is null where this run has no such arm or suite."""
    if table is None:
        return ()
    cells = []
    for row in table.to_dict("records"):
        arm = _match(row, arms)
        for column, suite, metric in COLUMNS:
            paper = row.get(column)
            ours = of_suite(arm, suite) if arm else None
            if not isinstance(paper, (int, float)) or math.isnan(paper):
                continue
            cells.append(
                ReferenceCell(
                    table=str(row["table"]),
                    row=str(row["row"]),
                    arm=arm.name if arm else None,
                    suite=suite,
                    metric=metric,
                    paper=paper / 100,
                    ours=getattr(ours, metric) if ours else None,
                )
            )
    return tuple(cells)


def _match(row: Mapping[Hashable, Any], arms: Sequence[ArmResult]) -> ArmResult | None:
    wanted = row.get("arm")
    if isinstance(wanted, str) and wanted:
        return next((a for a in arms if a.name == wanted), None)
    name, share = str(row["row"]), float(str(row["data_share"]))
    for arm in arms:
        if arm.name == name or arm.name == ALIASES.get(name) or arm.method == ALIASES.get(name):
            ours = 0.0 if arm.method == UNTUNED else 1.0 if arm.method == "full" else arm.ratio
            if ours is None or math.isclose(ours, share):
                return arm
    return None
