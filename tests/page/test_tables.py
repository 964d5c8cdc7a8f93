"""The forms of a table."""

import csv
import io

from qaq.evidence.estimate import Estimate
from qaq.page import tables as cells
from qaq.page.tables import Column, Table

TABLE = Table(
    "example",
    "An example",
    "With 100% & more_of_it.",
    (Column("arm", kind="text"), Column("plus", "mini"), Column("rows")),
    (
        (
            cells.text("rmi_band | x"),
            cells.percent(Estimate(value=0.25, low=0.125, high=0.5, n=8)),
            cells.number(12_345),
        ),
        (cells.text("b"), cells.EMPTY, cells.number(None)),
    ),
)


def test_text_lines_up_in_columns() -> None:
    assert cells.to_text(TABLE).splitlines() == [
        "                    mini",
        "arm                       plus    rows",
        "────────────  ────────────────  ──────",
        "rmi_band | x  25.0 [12.5–50.0]  12\u2009345",
        "b                            –       –",
    ]


def test_csv_has_bare_values_and_a_column_for_each_end_of_an_interval() -> None:
    rows = list(csv.reader(io.StringIO(cells.to_csv(TABLE))))
    assert rows == [
        ["arm", "mini plus", "mini plus low", "mini plus high", "rows"],
        ["rmi_band | x", "0.25", "0.125", "0.5", "12345"],
        ["b", "", "", "", ""],
    ]


def test_csv_has_words_and_the_value_behind_them() -> None:
    found = cells.Cell("better; non-inferior", "+2.0, +1.0 to +3.0", 0.02, 0.01, 0.03)
    columns = (Column("arm", kind="text"), Column("against full", kind="text"))
    table = Table("x", "", "", columns, ((cells.text("a"), found), (cells.text("b"), cells.EMPTY)))
    assert cells.to_csv(table).splitlines() == [
        "arm,against full,against full value,against full low,against full high",
        "a,better; non-inferior,0.02,0.01,0.03",
        "b,,,,",
    ]


def test_markdown_escapes_what_would_end_a_cell() -> None:
    lines = cells.to_markdown(TABLE).splitlines()
    assert lines[2:] == [
        "| arm | mini plus | rows |",
        "| :-- | --: | --: |",
        "| rmi_band \\| x | 25.0 [12.5–50.0] | 12\u2009345 |",
        "| b | – | – |",
    ]


def test_latex_escapes_what_it_would_read_as_commands() -> None:
    text = cells.to_latex(TABLE)
    assert r"\caption{An example. With 100\% \& more\_of\_it.}" in text
    assert r"rmi\_band | x & 25.0 [12.5--50.0] & 12\,345 \\" in text
    assert text.count("&") == 2 * 3 + 1


def test_a_difference_shows_its_sign() -> None:
    cell = cells.signed(-0.0123, -0.02, 0.001, scale=100)
    assert (cell.text, cell.interval) == ("−1.2", "−2.0 to +0.1")


def test_an_interval_below_zero_is_not_read_as_a_range_of_dashes() -> None:
    cell = cells.decimal(Estimate(value=-0.19, low=-0.267, high=-0.111, n=9))
    assert cell.whole == "−0.190 [−0.267 to −0.111]"
