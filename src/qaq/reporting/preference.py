"""On how many tasks each arm finds the right solution likelier than a corrupted one."""

import pandas as pd

from qaq.evidence.estimate import share
from qaq.reporting.schema import Preference


def preferences(found: pd.DataFrame | None) -> tuple[Preference, ...]:
    """By arm, suite and corruption, with Wilson's interval; a task is the share of its runs.

    Args:
        found: `Collected.preferences`. Equal likelihoods count half.
    """
    if found is None or found.empty:
        return ()
    ahead = (found["right"] < found["wrong"]) + 0.5 * (found["right"] == found["wrong"])
    by_task = (
        found.assign(ahead=ahead)
        .groupby(["arm", "benchmark", "corruption", "task_id"], sort=False)["ahead"]
        .mean()
    )
    listed = []
    for (arm, suite, corruption), part in by_task.groupby(level=[0, 1, 2], sort=False):
        estimate = share(float(part.sum()), len(part))
        if estimate is not None:
            listed.append(Preference(arm=arm, suite=suite, corruption=corruption, share=estimate))
    return tuple(listed)
