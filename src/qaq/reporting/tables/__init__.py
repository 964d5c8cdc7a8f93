"""Which tables the report has: one function per table, `Results` in, `Table` (or None) out.

A table without data is None and left out. Static text never says which arm is "better": only a
`finding` may.
"""

from collections.abc import Callable

from qaq.page.provenance import artifact_table
from qaq.page.tables import Table
from qaq.reporting.schema import Results
from qaq.reporting.tables import arms, contamination, pool, preference, ranking

ALL_TABLES: tuple[Callable[[Results], Table | None], ...] = (
    ranking.ranking_table, arms.result_table, arms.primary_tests, arms.as_good_table,
    arms.bits_tests, preference.preference_table, arms.detail_tests, arms.tuning_tests,
    arms.power_table, arms.reference_table, pool.retention_table, pool.separation_table,
    pool.model_free_table, pool.metrics_table, pool.correlation_table, pool.holdings_table,
    pool.overlap_table, arms.cost_table, contamination.contamination_table,
    contamination.untouched_table, arms.departures_table,
    lambda results: artifact_table(results.provenance),
)  # fmt: skip


def make_tables(results: Results) -> dict[str, Table]:
    """Every table that has data, by name, in the order of the page."""
    made = (make(results) for make in ALL_TABLES)
    return {table.name: table for table in made if table is not None}
