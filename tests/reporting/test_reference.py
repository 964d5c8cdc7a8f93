"""The paper's values beside ours."""

from pathlib import Path

import pytest

from qaq.host.errors import DataError
from qaq.reporting.collect import collect
from qaq.reporting.config import ReportStage
from qaq.reporting.tables.arms import reference_table

from .conftest import World, assembled

TABLE = """table,row,data_share,humaneval,humaneval_plus,mbpp,mbpp_plus,source
main,full,1.00,78.05,72.56,71.69,59.52,note
main,rmi_top50,0.50,78.05,73.17,72.22,58.20,note
main,rmi_band_50_75,0.25,77.44,72.56,71.43,58.47,note
main,ifd,0.25,71.95,66.46,64.81,54.76,note
untuned,deepseek_coder_6_7b_base,0.00,47.6,39.6,72.0,58.7,leaderboard
"""


def report(folder: Path, table: str) -> World:
    return World(folder=folder, suites={"humaneval": 30}, seeds=(1,), rows=200, reference=table)


def test_rows_meet_the_arm_of_their_rule_and_share(tmp_path: Path) -> None:
    results = assembled(report(tmp_path, TABLE).build())
    arms = {(c.row, c.suite, c.metric): c for c in results.reference}
    assert arms["rmi_band_50_75", "humaneval", "plus"].arm == "rmi_band"
    assert arms["rmi_top50", "humaneval", "plus"].arm is None
    assert arms["deepseek_coder_6_7b_base", "humaneval", "base"].arm == "untuned"
    cell = arms["full", "humaneval", "base"]
    (full,) = [a for a in results.arms if a.name == "full"]
    assert cell.paper == pytest.approx(0.7805)
    assert cell.ours == next(s.base for s in full.suites if s.suite == "humaneval")
    assert arms["full", "mbpp", "base"].ours is None
    table = reference_table(results)
    assert table is not None
    rows = {row[0].text: [cell.value for cell in row] for row in table.rows}
    assert set(rows) == {"full", "rmi_band_50_75", "ifd", "deepseek_coder_6_7b_base"}
    assert cell.ours is not None
    assert rows["full"][1:4] == ["full", pytest.approx(0.7805), cell.ours.value]


def test_a_column_may_name_the_arm(tmp_path: Path) -> None:
    table = "table,row,data_share,humaneval_plus,arm\nx,something else,0.25,50.0,ifd\n"
    (cell,) = assembled(report(tmp_path, table).build()).reference
    assert (cell.arm, cell.metric, cell.paper) == ("ifd", "plus", 0.5)


def test_a_reference_without_its_columns_is_refused(tmp_path: Path) -> None:
    job = report(tmp_path, "table,value\na,1\n").build()
    with pytest.raises(DataError, match=r"columns \['data_share', 'row'\] are missing"):
        collect(job.parse(ReportStage), job.inputs)
