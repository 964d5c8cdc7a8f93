"""The options of the command line; what the commands do is in `qaq.cli`."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qaq import __version__
from qaq.host.paths import expanded

SANDBOXES = ["bubblewrap", "unshare", "landlock", "limits"]
OVERRIDES = "Hydra overrides, such as experiment=quickstart ratio=0.1 data.limit=200"
KINDS = ["experiments", "rules", "metrics", "models", "data", "benchmarks"]
TRAINERS = ["llamafactory", "axolotl", "trl"]
SHELLS = ["bash", "zsh", "fish"]
START = """the three that most people want:
  qaq run experiment=quickstart                    the whole pipeline, small, on two cores
  qaq select FILE --keep 25% -o OUT                the better part of a file of pairs, as it came
  qaq list                                         experiments, rules, metrics, models, data"""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The parsed command line; options may stand before, between and after overrides."""
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what the word under its cursor may become
        import argcomplete

        argcomplete.autocomplete(parser)
    given, rest = parser.parse_known_args(arguments)
    if hasattr(given, "files"):  # of select and score: records and overrides, in any order
        given.files += [text for text in rest if text == "-" or not text.startswith("-")]
        rest = [text for text in rest if text not in given.files]
        is_file = {text: "=" not in text or _is_there(text) for text in given.files}
        given.overrides = [text for text in given.files if not is_file[text]]
        given.files = [text for text in given.files if is_file[text]]
    unexpected = [text for text in rest if text.startswith("-") or "=" not in text]
    if unexpected or (rest and not hasattr(given, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(unexpected or rest)}")
    if rest:
        given.overrides += rest
    return given


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # longer than a file's name may be: an override
        return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qaq",
        description="Choose code-instruction data by how well the answer predicts the question, "
        "\ntrain on it, and say which way of choosing was better.",
        epilog=START,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"qaq {__version__}")
    parser.set_defaults(command=None, help=parser.format_help)
    commands = parser.add_subparsers(metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "-cd",
            "--config-dir",
            type=expanded,
            metavar="DIR",
            help="a folder with rules, metrics, … and options of your own (docs/extending.md)",
        )
        command.set_defaults(command=name)
        return command

    _add_choosing(add)
    _add_composing(add)
    list_ = add("list", "list what there is to choose from")
    list_.add_argument("kind", nargs="?", choices=KINDS)
    completion = add("completion", "print what makes a shell complete qaq's words")
    completion.add_argument("shell", choices=SHELLS)
    in_store = [
        add("status", "list what the store holds and what is being built"),
        add("why", "say in which fields two artifacts differ"),
        add("audit", "say what a subset holds and why"),
        add("report", "show the result of an experiment that has run"),
        add("sync", "send offline runs to Weights & Biases"),
        add("gc", "delete what no kept experiment needs"),
        add("doctor", "check this machine"),
        add("export", "write the rows that a subset keeps as JSONL or Parquet"),
        add("compare", "test two results against each other"),
    ]
    for command in in_store:
        command.add_argument(
            "--store",
            type=expanded,
            default=Path("artifacts"),
            help="the artifact store (artifacts)",
        )
    status_, why_, audit_, report_, _, gc_, doctor_, export_, compare_ = in_store
    status_.add_argument("--verify", action="store_true", help="compare every file with its hash")
    gc_.add_argument(
        "--keep",
        action="append",
        nargs="+",
        required=True,
        metavar="KEY=VALUE",
        help="an experiment to keep, as qaq run takes it (once for each experiment)",
    )
    gc_.add_argument("--delete", action="store_true", help="do it (default: only say what)")
    for name in ("a", "b"):
        why_.add_argument(name, help="an artifact: its name, or the start of it or of its key")
    audit_.add_argument("subset", help="a subset: its name, or the start of it or of its key")
    audit_.add_argument("--diff", metavar="OTHER", help="another subset to compare with")
    audit_.add_argument("--json", action="store_true", help="print JSON")
    audit_.add_argument("--html", type=expanded, metavar="FILE", help="write a page")
    for command in (audit_, export_):
        command.add_argument("--force", action="store_true", help="replace a file that is there")
    export_.add_argument("subset", help="a subset: its name, or the start of it or of its key")
    export_.add_argument("file", type=expanded, help="where to: a name in .jsonl or .parquet")
    report_.add_argument("experiment", nargs="?", help="its name (default: the latest)")
    doctor_.add_argument("--json", action="store_true", help="print JSON")
    doctor_.add_argument(
        "--canonical", action="store_true", help="also judge the canonical solutions (minutes)"
    )
    judge_ = add("judge", "judge a file of samples in EvalPlus's format, in the sandbox")
    judge_.add_argument(
        "samples",
        type=expanded,
        help="JSONL (or .gz) with task_id and solution or completion, or EvalPlus's folder",
    )
    judge_.add_argument(
        "--suite", required=True, help="a known suite, a benchmark or BENCHMARK:SUITE"
    )
    judge_.add_argument("--data", type=expanded, metavar="FILE", help="the suite's EvalPlus file")
    judge_.add_argument("--allow-unknown-data", action="store_true", help="another file than known")
    judge_.add_argument(
        "--tasks", metavar="ID,ID", help="these tasks only; given: those with samples"
    )
    judge_.add_argument(
        "--sanitize",
        action=argparse.BooleanOptionalAction,
        help="have EvalPlus's sanitiser take the programs out of raw answers first",
    )
    judge_.add_argument("--limit", type=int, metavar="N", help="the first N tasks only")
    judge_.add_argument("--judge", default="repaired", choices=["repaired", "stock"])
    judge_.add_argument("--sandbox", default="auto", choices=["auto", *SANDBOXES])
    judge_.add_argument("--workers", type=_count, metavar="N", help="samples at a time (cores)")
    judge_.add_argument("--out", type=expanded, metavar="FILE", help="(SAMPLES_eval_results.json)")
    for name in ("a", "b"):
        compare_.add_argument(
            name,
            type=expanded,
            help="results.json, an outcomes folder, EvalPlus's, or a name of the store",
        )
    for name in ("a", "b"):
        compare_.add_argument(f"--arm-{name}", metavar="ARM", help=f"which arm of {name.upper()}")
    compare_.add_argument(
        "--different-benchmarks",
        action="store_true",
        help="compare although they were judged on different files of a benchmark",
    )
    compare_.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_choosing(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """The commands that take files of records."""
    for name, text in (
        ("score", "score the records of files: one row of a table for each"),
        ("select", "write the better part of files of pairs, as the records came"),
    ):
        command = add(name, text)
        command.add_argument(
            "files",
            nargs="*",
            metavar="FILE",
            help="JSONL, JSON, CSV (also .gz, .zst, .bz2) or Parquet: files, folders, patterns in "
            "quotes, - for standard input; and overrides as qaq run takes them",
        )
        command.add_argument("--model", metavar="MODEL", help="a preset, OWNER/NAME or a folder")
        command.add_argument("--weak", metavar="MODEL", help="a second, weaker scorer")
        command.add_argument(
            "--fields",
            metavar="NAMES",
            help="of the records: question=NAME,answer=NAME[,input=NAME][,system=NAME]",
        )
        command.add_argument("-o", "--out", type=expanded, metavar="FILE", help="where to write")
        command.add_argument("--force", action="store_true", help="replace files that are there")
        command.add_argument("--store", type=expanded, help="the artifact store (artifacts)")
        if name == "score":
            command.add_argument(
                "--metrics",
                metavar="NAMES",
                help="score only what these read: rmi,ifd (qaq list metrics; default: all)",
            )
    command.add_argument("--keep", metavar="HOW_MUCH", help="25%%, 0.25 or 5000 (rows)")
    command.add_argument("--by", metavar="RULE", help="qaq list rules (default: rmi_middle)")
    command.add_argument("--scores", type=expanded, metavar="FILE", help="also the table of scores")
    command.add_argument(
        "--page",
        type=expanded,
        metavar="FILE",
        help="also a page: what is kept, why, rows at the cut",
    )
    command.add_argument(
        "--with-scores", action="store_true", help="put each record's scores under its key qaq"
    )
    command.add_argument(
        "--for", dest="trainer", choices=TRAINERS, help="also the settings that this trainer needs"
    )
    command.add_argument(
        "--explain", action="store_true", help="print what each rule was shown to do, and stop"
    )


def _add_composing(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """The commands that compose a configuration from overrides."""
    for name, text in (
        ("run", "run an experiment, or a sweep with -m"),
        ("show", "print the configuration that overrides compose"),
        ("plan", "show what a run would do, and start nothing"),
    ):
        command = add(name, text)
        command.add_argument("-m", "--multirun", action="store_true", help="sweep over value lists")
        _add_overrides(command)
        command.add_argument("-p", "--package", metavar="PART", help="of --cfg and show: this part")
        if name != "show":
            command.add_argument("--cfg", choices=["job"], help="as qaq show; starts nothing")
    fetch_ = add("fetch", "fetch all that an experiment takes from elsewhere")
    fetch_.add_argument("--list", action="store_true", help="only say what, how large, whose")
    _add_overrides(fetch_)
    command.add_argument(
        "--device",
        metavar="NAME",
        help="count with cpu (this), 2cores, h200, h100, a100, l40s, rtx4090",
    )
    command.add_argument("--price", type=float, metavar="USD", help="of a device and hour")
    command.add_argument("--rows", type=_count, help="rows of a pool that is not here")
    command.add_argument(
        "--tokens", type=_two_counts, metavar="Q,A", help="mean tokens of question and answer"
    )


def _two_counts(text: str) -> tuple[int, int]:
    """Two counts with a comma between them."""
    try:
        question, answer = map(_count, text.split(","))
    except ValueError:
        found = f"found {text!r}; expected two counts with a comma between them, as 120,480"
        raise argparse.ArgumentTypeError(found) from None
    return question, answer


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number above 0")
    return int(text)


def _add_overrides(command: argparse.ArgumentParser) -> None:
    """Overrides, whose words a shell completes (argcomplete reads the attribute)."""
    action = command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES)
    action.completer = _overrides  # type: ignore[attr-defined]


def _overrides(prefix: str, **_: Any) -> list[str]:
    from qaq.run.catalogue import override_choices

    return override_choices(prefix)
