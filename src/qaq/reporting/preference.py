"""On how many tasks each arm finds the right solution likelier than a corrupted one."""

from collections import defaultdict

import numpy as np
import pandas as pd

from qaq.evidence.estimate import share
from qaq.reporting.schema import Preference


def preferences(found: pd.DataFrame | None) -> tuple[Preference, ...]:
    """By arm, suite and corruption, with Wilson's interval; a task is the share of its runs.

    Args:
        found: `Collected.preferences`. Equal likelihoods count half.
    """
    runs: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(dict)
    for row in [] if found is None else found.to_dict("records"):
        tasks = runs[row["arm"], row["benchmark"], row["corruption"]]
        ahead = (row["right"] < row["wrong"]) + 0.5 * (row["right"] == row["wrong"])
        tasks.setdefault(row["task_id"], []).append(ahead)
    shares = {
        of: share(sum(float(np.mean(each)) for each in tasks.values()), len(tasks))
        for of, tasks in runs.items()
    }
    return tuple(
        Preference(arm=arm, suite=suite, corruption=corruption, share=estimate)
        for (arm, suite, corruption), estimate in shares.items()
        if estimate is not None
    )
