"""The command line; `qaq --help` lists its commands.

Each command imports what it needs when it is called, so that `qaq --help` answers at once. User
errors are shown as one message and give exit code 2; a failed stage gives 1.
"""

import argparse
import contextlib
import json
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from qaq.arguments import parse
from qaq.host import plugins, targets
from qaq.host.errors import OutputClosed, Preempted, QaqError, UserError
from qaq.host.preemption import stoppable
from qaq.host.terminal import show, speak_plainly

if TYPE_CHECKING:
    from qaq.api.work import Wishes
    from qaq.evaluation.config import Suite


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run the command, return the exit code."""
    speak_plainly()
    given = parse(arguments)
    try:
        if given.command is None:
            show(given.help().rstrip())
            return 0
        command = COMMANDS[given.command]
        plugins.start(getattr(given, "config_dir", None))
        with stoppable() if given.command in CONTINUED else contextlib.nullcontext():
            outcome = command(given)
        if isinstance(outcome, str):
            show(outcome)
        return outcome if isinstance(outcome, int) else 0
    except OutputClosed as closed:
        return closed.exit_code
    except (QaqError, Preempted) as error:
        show(f"qaq: {error}", error=True)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nqaq: interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except OSError as error:
        trouble = targets.file_trouble(error)
        if trouble is None:
            raise
        show(f"qaq: {trouble}", error=True)
        return UserError.exit_code


def run(given: argparse.Namespace) -> int | str:
    """Make everything an experiment needs that is not there yet, then show its result."""
    from qaq.plan.planning import opening
    from qaq.run.compose import compose, expand
    from qaq.run.experiment import execute, refuse_without_card
    from qaq.run.pipeline import Run
    from qaq.run.sweep import check_launcher, submits, sweep

    if given.cfg:
        return show_configuration(given)
    if not given.overrides:
        from qaq.run.catalogue import run_choices

        show("\n".join(run_choices()))
        return UserError.exit_code
    check_launcher(given.overrides)
    if not given.multirun and len(expand(given.overrides)) > 1:
        raise UserError("several values for one field are a sweep; add -m: qaq run -m …")
    if given.multirun or submits(given.overrides):
        return sweep(given.overrides, show, opening)
    command = shlex.join(["qaq", "run", *plugins.option(), *given.overrides])
    experiment = Run(compose(given.overrides))
    refuse_without_card(experiment)  # before a plan asks the Hub
    show(opening([experiment]))
    return execute(experiment, show, command)


def fetch(given: argparse.Namespace) -> None:
    """List what an experiment takes from elsewhere, with sizes and licences, and fetch it."""
    from qaq.run.compose import compose
    from qaq.run.fetch import fetch as fetch_all
    from qaq.run.pipeline import Run

    fetch_all(Run(compose(given.overrides)), show, given.list)


def plan(given: argparse.Namespace) -> str:
    """Show every stage, its key, whether it is there, and what it takes; start nothing."""
    from qaq.plan.planning import plan_lines
    from qaq.run.sweep import check_launcher

    if given.cfg:
        return show_configuration(given)
    check_launcher(given.overrides)
    lines = plan_lines(given.overrides, given.device, given.price, given.rows, given.tokens)
    return "\n".join(lines)


def show_configuration(given: argparse.Namespace) -> str:
    """Print the checked configuration that the overrides compose, with every default, as YAML."""
    from qaq.run.catalogue import composed
    from qaq.run.compose import expand

    jobs = expand(given.overrides)
    return "\n---\n".join(composed(job, given.package) for job in jobs)


def list_choices(given: argparse.Namespace) -> str:
    """Print the experiments, rules, metrics, models, data sets or benchmarks, a line each."""
    from qaq.run.catalogue import lines

    return "\n".join(lines(given.kind))


def completion(given: argparse.Namespace) -> str:
    """Print the shell code that completes qaq's words: `eval "$(qaq completion bash)"`."""
    from argcomplete.shell_integration import shellcode

    return shellcode(["qaq"], shell=given.shell).rstrip()


def status(given: argparse.Namespace) -> str:
    """List the artifacts of the store and what is being built."""
    from qaq.store.inspection import status_lines

    return "\n".join(status_lines(given.store, given.verify))


def gc(given: argparse.Namespace) -> str:
    """Delete what the named experiments do not need; without --delete, say what that would be."""
    from qaq.run.garbage import collect

    return "\n".join(collect(given.store, given.keep, given.delete))


def why(given: argparse.Namespace) -> str:
    """Print the fields in which two artifacts' keys differ."""
    from qaq.store.inspection import why_lines

    return "\n".join(why_lines(given.store, given.a, given.b))


def audit(given: argparse.Namespace) -> str:
    """What a subset holds and why; with --diff, what moved against another."""
    from qaq.host.runtime import store_option
    from qaq.selection import audit as audits
    from qaq.store.inspection import find_artifact, input_of, intact

    if given.html:
        targets.check_target(given.html)
    subset = intact(find_artifact(given.store, given.subset, "subset"))
    pairs = input_of(given.store, subset, "pairs")
    result: audits.Audit | audits.SubsetDiff
    if given.diff:
        other = intact(find_artifact(given.store, given.diff, "subset"))
        result = audits.diff(subset.path, other.path, pairs.path)
    else:
        result = audits.audit(subset.path, pairs.path)
    if given.html:
        targets.refuse_to_replace(given.html, given.force)
        at = store_option(given.store)
        html = (
            audits.page(result, subset.path, at)
            if isinstance(result, audits.Audit)
            else audits.to_html(result)
        )
        given.html.write_text(html, encoding="utf-8")
        return str(given.html)
    if given.json:
        return json.dumps(audits.to_json(result), indent=1)
    return audits.to_text(result)


def export(given: argparse.Namespace) -> str:
    """Write the rows that a subset keeps to a file, for another trainer."""
    from qaq.selection.export import export as write
    from qaq.store.inspection import find_artifact, input_of, intact

    targets.check_target(given.file)
    targets.refuse_to_replace(given.file, given.force)
    subset = intact(find_artifact(given.store, given.subset, "subset"))
    rows = write(subset.path, input_of(given.store, subset, "pairs").path, given.file)
    return f"{given.file}: {rows} rows of {subset.path.name}"


def select(given: argparse.Namespace) -> str | None:
    """Choose from the records of files, and write those that are kept as they came."""
    from qaq.api.explain import explanation
    from qaq.api.select import Outputs, select_files
    from qaq.api.work import RULE, Keep

    if given.explain:
        return explanation(given.by)
    _require(given)
    outputs = Outputs(
        given.out, given.scores, given.page, given.with_scores, given.trainer, given.force
    )
    keep = Keep.of(given.keep) if given.keep else None
    select_files(given.files, keep, _wishes(given, given.by or RULE), outputs, show)
    return None


def score(given: argparse.Namespace) -> None:
    """Score the records of files: one row of a Parquet table for each."""
    from qaq.api.select import score_files

    _require(given)
    metrics = given.metrics.split(",") if given.metrics else None
    score_files(given.files, _wishes(given), metrics, given.out, given.force, show)


def _require(given: argparse.Namespace) -> None:
    if not given.files:
        raise UserError(f"which records? qaq {given.command} FILE …; - is standard input")
    if given.out is None:
        raise UserError("where to? add -o FILE")


def _wishes(given: argparse.Namespace, rule: str = "full") -> "Wishes":
    from qaq.api.source import fields_of
    from qaq.api.work import Wishes

    return Wishes(
        rule=rule,
        model=given.model,
        weak=given.weak,
        fields=fields_of(given.fields),
        store=given.store,
        overrides=tuple(given.overrides),
    )


def compare(given: argparse.Namespace) -> str:
    """Paired tests between any two results, ours or another harness's."""
    from qaq.api.functions import compare as compare_results

    arms = given.arm_a, given.arm_b
    result = compare_results(given.a, given.b, *arms, given.different_benchmarks, store=given.store)
    return json.dumps(result.tree, indent=1) if given.json else result.text


def judge(given: argparse.Namespace) -> str:
    """Judge samples in EvalPlus's format, in the sandbox; write a file in its format."""
    from qaq.evaluation import benchmarks
    from qaq.evaluation.judge import samples as judge_samples
    from qaq.evaluation.judge.judge import JudgeSettings

    tasks = given.tasks.split(",") if given.tasks else None
    name, suite = _suite(given)
    wanted = judge_samples.Wanted(tasks, given.limit, given.sanitize)
    settings = JudgeSettings(judge=given.judge, sandbox=given.sandbox, workers=given.workers)
    written, benchmark, result = judge_samples.judge_file(
        given.samples, lambda: benchmarks.load(name, suite=suite), settings, wanted, given.out
    )
    return "\n".join([*judge_samples.summary(benchmark, result), str(written)])


def _suite(given: argparse.Namespace) -> "tuple[str, Suite]":
    """A known suite by its name, or the one of an option of the group `benchmark`."""
    from qaq.evaluation.benchmarks import suite_of
    from qaq.evaluation.config import SUITES
    from qaq.run.compose import compose

    name, _, part = given.suite.partition(":")
    if given.suite in SUITES:
        return name, suite_of(name, given.data, allow_unknown=given.allow_unknown_data)
    more = [f"benchmark.allow_unknown_data={str(given.allow_unknown_data).lower()}"]
    found = compose([f"benchmark={name}", *more]).benchmark.resolved
    if not part and len(found) == 1:
        (part,) = found
    if part not in found:
        ways = " or ".join(f"--suite {name}:{suite}" for suite in found)
        raise UserError(f"--suite {given.suite}: judge one suite of that benchmark, {ways}")
    return part, replace(found[part], file=given.data or found[part].file)


def report(given: argparse.Namespace) -> str:
    """Print the result table of an experiment that has run, and where its page is."""
    from qaq.store.inspection import report_lines

    return "\n".join(report_lines(given.store, given.experiment))


def sync(given: argparse.Namespace) -> int:
    """Send the runs that were kept offline to Weights & Biases."""
    from qaq.tracking.sync import sync as send

    done = send(given.store)
    show(f"{len(done.sent)} runs sent, {len(done.before)} were there before")
    if done.failed:
        show(f"{len(done.failed)} could not be sent; is there a key (wandb login) and a network?")
    return 1 if done.failed else 0


def doctor(given: argparse.Namespace) -> int:
    """Check what this machine has, line by line, with the command that fixes what is missing."""
    from qaq import doctor as checks

    found = checks.examine(given.store, canonical=given.canonical)
    if given.json:
        show(json.dumps([vars(check) for check in found], indent=1))
    else:
        show("\n".join(check.line() for check in found))
    return 0 if all(check.ok or not check.needed for check in found) else 1


OWN_NAMES = {"show": show_configuration, "list": list_choices}  # names that Python has taken
COMMANDS = OWN_NAMES | {
    command.__name__: command
    for command in (
        *(run, fetch, plan, status, gc, why, audit, export, compare, judge, report, sync, doctor),
        *(select, score, completion),
    )
}
CONTINUED = {"run", "select", "score"}  # the same command, later, goes on

if __name__ == "__main__":
    sys.exit(main())
