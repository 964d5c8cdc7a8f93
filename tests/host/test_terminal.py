"""Text that holds data cannot steer a terminal."""

import io
import json
import subprocess
import sys

import pytest

from qaq.host.terminal import plain, show


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b]0;title\x07", "\\u001b]0;title\\u0007"),
        ("\x1b]52;c;AAAA\x1b\\", "\\u001b]52;c;AAAA\\u001b\\"),
        ("\x9b31m", "\\u009b31m"),
        ("a\x7fb\rc\x00", "a\\u007fb\\u000dc\\u0000"),
        ("left\u202eright\u2066", "left\\u202eright\\u2066"),
        ("half \ud800", "half \\ud800"),
        ("tab\tand\nline, ä, 语, 😀", "tab\tand\nline, ä, 语, 😀"),
    ],
)
def test_what_steers_a_terminal_is_escaped_and_nothing_else(text, expected):
    assert plain(text) == expected


def test_escaped_json_is_still_json():
    text = json.dumps({"a": "\x1b[31m\x7f\u202e"}, ensure_ascii=False)
    assert json.loads(plain(text)) == {"a": "\x1b[31m\x7f\u202e"}


def test_a_terminal_without_unicode_gets_escapes(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    show("ä \x1b")
    assert stream.buffer.getvalue() == b"\\xe4 \\u001b\n"


@pytest.mark.parametrize("words", [[], ["list"], ["plan", "experiment=quickstart"]])
def test_output_that_nobody_reads_ends_like_any_program_of_the_shell(words):
    command = [sys.executable, "-m", "qaq.cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141  # 128 + SIGPIPE
