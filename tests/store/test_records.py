"""The local record of a stage, over kills."""

from pathlib import Path

import pytest

from qaq.store.records import Record
from qaq.store.tables import cut_torn_line, read_jsonl


@pytest.mark.parametrize("torn", [b'{"time": 1.0, "st', b"\0\0\0", b""])
def test_a_line_that_a_kill_tore_spoils_none_behind_it(tmp_path: Path, torn: bytes) -> None:
    file = tmp_path / "record.jsonl"
    for step in (1, 2):
        record = Record(file)
        record.log(step=step, loss=0.5)
        record.close()
        with file.open("ab") as killed:
            killed.write(torn)
    assert [line["step"] for line in read_jsonl(file)] == [1, 2]


def test_a_file_of_whole_lines_or_none_stays_as_it_is(tmp_path: Path) -> None:
    cut_torn_line(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    whole = tmp_path / "whole"
    for content in (b"", b"one\ntwo\n"):
        whole.write_bytes(content)
        cut_torn_line(whole)
        assert whole.read_bytes() == content
