"""A sweep: every job is checked before the first starts, what jobs share is made once, and what
they make together is compared on one page.

Jobs run through whatever launcher Hydra is given; those whose artifacts are all there are not
started. A job makes everything but the report and does not raise: what it made and what failed is
read from the store afterwards, wherever it ran.
"""

import contextlib
import importlib.util
import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from qaq.data.config import PairsStage
from qaq.host import plugins
from qaq.host.errors import ConfigError, Preempted, QaqError, UserError
from qaq.host.terminal import show
from qaq.run import slurm
from qaq.run.comparison import SweepJob, combine
from qaq.run.compose import (
    compose_all,
    effective,
    expand,
    hydras,
    open_fields,
    search_path,
    tree_of,
    values_of,
)
from qaq.run.experiment import execute
from qaq.run.fingerprints import models_in, pinned_model
from qaq.run.pipeline import Run
from qaq.run.reading import resolved
from qaq.run.stage import Stage, in_order
from qaq.run.validation import validate
from qaq.store import failures
from qaq.store.store import Store

Say = Callable[[str], None]


def jobs_of(overrides: list[str]) -> list[SweepJob]:
    """The jobs of a sweep, composed and checked.

    Raises:
        ConfigError: a job cannot be composed, or a swept field has no effect.
    """
    expanded = expand(overrides)
    configs = compose_all(expanded)
    for field, several in (("seed", "seeds"), ("ratio", "ratios")):
        swept = len({values_of(job).get(field) for job in expanded}) > 1
        if swept and any(getattr(config, several) for config in configs):
            raise ConfigError(
                [f"{field}: it is swept, but the experiment sets {several}; add {several}=null"]
            )
    return [SweepJob(config, tuple(job)) for job, config in zip(expanded, configs, strict=True)]


def sweep(overrides: list[str], say: Say, opening: Callable[[Sequence[Run]], str]) -> int:
    """Run what is missing of a sweep's jobs, then compare; returns 0 if all is there, else 1.

    `opening` says how many stages some runs have and about how long they take.

    Raises:
        ConfigError: a job cannot be composed; nothing has started then.
        Preempted: this process was asked to stop.
    """
    jobs = jobs_of(overrides)
    with contextlib.ExitStack() as leases:
        for place in {job.config.runtime.store for job in jobs}:
            mine = [job for job in jobs if job.config.runtime.store == place]
            keys = {stage.key for job in mine for stage in job.stages}
            leases.enter_context(_store(place).lease(keys))  # also between its jobs
        return _swept(jobs, overrides, say, opening)


def _swept(
    jobs: list[SweepJob],
    overrides: list[str],
    say: Say,
    opening: Callable[[Sequence[Run]], str],
) -> int:
    combine(jobs)  # what cannot be compared at the end is refused before anything starts
    left = [job for job in jobs if missing(job)]
    said = f"; together {opening([Run(config) for config in combine(left)])}" if left else ""
    say(f"sweep of {len(jobs)} jobs, {len(left)} to run{said}")
    launcher = hydras(overrides)
    if submits(overrides):
        tried: set[str] = set()
        # or every arm would hold its cards while one of them makes what all need
        while first := {key: o for key, o in shared_first(left).items() if key not in tried}:
            say(f"{len(first)} stages that several jobs need come {'next' if tried else 'first'}")
            _launch([[*o, f"runtime.only=['{key}']"] for key, o in first.items()], launcher)
            tried |= first.keys()
        shared = shared_keys(left)
        ready = [job for job in left if not (shared & {s.key for s in missing(job)})]
        if ready:
            _launch([_handed(job) for job in ready], launcher)
    else:
        waiting = list(left)
        while waiting:  # what another command has begun comes last
            job = next((job for job in waiting if not in_work(job)), waiting[0])
            waiting.remove(job)
            if _launch([_handed(job)], launcher) is False:
                break
    lost = [job for job in left if missing(job)]
    done = [job for job in jobs if job not in lost]
    command = shlex.join(["qaq", "run", *plugins.option(), "-m", *overrides])
    codes = [execute(Run(config), say, command) for config in combine(done)]
    if lost:
        say(f"\n{len(done)} of {len(jobs)} jobs are complete; these are not:")
        for job in lost:
            say(_what_is_missing(job))
        say(f"To continue, with only what is missing: {command}")
    return 1 if lost or any(codes) else 0


def missing(job: SweepJob) -> list[Stage]:
    """The stages of a job, report aside, that the store does not hold."""
    store = _store(job.config.runtime.store)
    return [s for s in job.stages[:-1] if s.find(store) is None]


def submits(overrides: Sequence[str]) -> bool:
    """Whether the jobs go to a launcher that hands them to somebody else."""
    return any(t.startswith("hydra/launcher=") and "basic" not in t for t in overrides)


def shared_keys(jobs: Sequence[SweepJob]) -> set[str]:
    """Keys of the missing stages with a model that several of the jobs need."""
    missed = [{stage.key for stage in missing(job) if stage.uses_model} for job in jobs]
    counts = Counter(key for keys in missed for key in keys)
    return {key for key, count in counts.items() if count > 1}


def shared_first(jobs: Sequence[SweepJob]) -> dict[str, list[str]]:
    """The overrides of a job with it, by the key of each shared stage that rests on no other."""
    shared = shared_keys(jobs)
    found: dict[str, SweepJob] = {}
    for job in jobs:
        for stage in missing(job):
            below = {s.key for s in in_order([stage])[:-1]}
            if stage.key in shared and not below & shared:
                found.setdefault(stage.key, job)
    return {key: _handed(job) for key, job in found.items()}


def in_work(job: SweepJob) -> bool:
    """Whether another process is making what the job would make next."""
    store = _store(job.config.runtime.store)
    left = missing(job)
    return bool(left) and store.busy(left[0].kind, left[0].key)


@lru_cache
def _store(root: Path) -> Store:
    return Store(root)


def one_job(composed: DictConfig) -> int:
    """What a launcher calls for each job. It ends the sweep only if that is asked for."""
    setup_globals()
    if "SUBMITIT_EXECUTOR" in os.environ and os.environ.get("SLURM_PROCID", "0") != "0":
        return 0  # a further node of a job with runtime.hosts; its first one reaches it by srun
    config = validate(tree_of(OmegaConf.to_container(composed, resolve=True)))
    try:
        code = execute(Run(config), show, None, report=False)
    except Preempted as error:
        show(f"qaq: {error}", error=True)
        raise SystemExit(error.exit_code) from None
    except QaqError as error:
        show(f"qaq: {error}", error=True)
        code = error.exit_code
    if code and config.runtime.on_failure == "stop":
        raise SystemExit(code)
    return code


def _what_is_missing(job: SweepJob) -> str:
    """A job that is not complete: what failed, why, and the command that goes on."""
    store = _store(job.config.runtime.store)
    lines = [f"  {job.command}"]
    left = missing(job)
    for stage in left:
        work = store.work_folder(stage.kind, stage.key)
        failure = failures.read(work)
        if failure:
            lines.append(f"    {stage.kind} {stage.name}: {failure.message}")
            lines.append(f"    traceback: {failures.traceback_file(work)}")
    if len(lines) == 1:
        lines.append(f"    {left[0].kind} {left[0].name} was not reached")
    return "\n".join(lines)


def _handed(job: SweepJob) -> list[str]:
    """The overrides of which a launcher, wherever it is, composes the job as it is planned here."""
    return [*effective(list(job.overrides)), *_pinned(job)]


def _pinned(job: SweepJob) -> list[str]:
    """The store, precisions and commits as this machine resolved them, so that a job elsewhere, at
    whatever time it starts, has the same keys and reads the same files.
    """
    used: set[tuple[str, str]] = set()
    # with `~` read: Hydra puts its own folder there
    texts = [f"runtime.store={json.dumps(str(job.config.runtime.store), ensure_ascii=False)}"]
    for stage in job.stages:
        if isinstance(stage.config, PairsStage) and stage.config.data.commit:
            texts.append(f"data.commit={stage.config.data.commit}")
        used |= {(model.name, model.id) for _, model in models_in(stage.config, ())}
    for path, model in models_in(job.config, ()):
        if (model.name, model.id) in used:  # what no stage reads need not be found
            found, place = pinned_model(resolved(model, job.config)), ".".join(path)
            texts.append(f"{place}.dtype={found.dtype}")
            if found.revision != model.revision:
                texts.append(f"{place}.revision={found.revision}")
    return texts


def _launch(jobs: list[list[str]], launcher_overrides: list[str]) -> bool:
    """Hand the jobs to Hydra's launcher; returns when all of them have ended.

    Returns:
        False where one of them ended the sweep (`runtime.on_failure=stop`).

    Raises:
        Preempted: a job of this very process was asked to stop.
    """
    version.setbase("1.3")
    hydra = Hydra.create_main_hydra2(task_name="qaq", config_search_path=search_path())
    try:
        opened = [open_fields([t for t in job if t not in launcher_overrides]) for job in jobs]
        master = hydra.compose_config(
            "config",
            [*launcher_overrides, *opened[0]],
            run_mode=RunMode.MULTIRUN,
            with_log_configuration=False,
        )
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(master))
        launcher = Plugins.instance().instantiate_launcher(context, one_job, master)
        slurms = getattr(launcher, "_EXECUTOR", None) == "slurm"
        with slurm.submitting() if slurms else contextlib.nullcontext(), slurm.patient():
            launcher.launch(opened, 0)
    except slurm.refusals() as error:
        said = " ".join(str(error).split("\n")[0:3]).strip()
        raise UserError(f"the jobs were not taken: {said}. Look at hydra.launcher.…") from None
    except SystemExit as stop:
        if stop.code == Preempted.exit_code:
            raise Preempted("a signal") from None
        return False
    finally:
        GlobalHydra.instance().clear()
    return True


def check_launcher(overrides: list[str]) -> None:
    """Say how to get a launcher that is not installed.

    Raises:
        ConfigError: the launcher is submitit's, and it is not there.
    """
    if submits(overrides) and importlib.util.find_spec("submitit") is None:
        raise ConfigError(
            ["hydra/launcher: this one is not installed: pip install hydra-submitit-launcher"]
        )
