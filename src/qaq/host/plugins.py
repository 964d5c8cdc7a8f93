"""Files of one's own: a rule, a metric, a framing, a data source, a benchmark, a judge.

Each is one Python file. A decorator (`qaq.selection.rule.rule`, `qaq.scoring.metrics.metric`, …)
puts what it defines into a `Registry`, and the file is found in one of two ways:

- a folder in `QAQ_PATH` (folders joined by `os.pathsep`), which `qaq --config-dir DIR` extends:
  every Python file at its top is imported, and YAML files in its subfolders (`selector/mine.yaml`)
  are options of those groups of `conf/`, as if they lay there;
- an installed package that names a module in the entry-point group `qaq.plugins`; a folder `conf`
  beside that module holds its options.

They are imported when a registry is first read, in the planner and in each worker alike (worker
processes inherit the environment), so such a file must not import torch at its top. The hash of its
source, and of what it imports from the same folder or package, enters the keys of what it computes.
"""

import ast
import difflib
import functools
import hashlib
import importlib.util
import json
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module, metadata, resources
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

from qaq.host.errors import QaqError, UserError

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

GROUP = "qaq.plugins"
FOLDERS = "QAQ_PATH"
SEEN = "QAQ_PLUGINS_SEEN"  # set for child processes: what this process read, as {file: hash}
NOT_PLUGINS = ("_", "test_", "conftest", "setup")  # starts of names of files that are not imported


class PluginError(UserError):
    """A file of the user's own cannot be imported, failed, or clashes with another."""


class Registry(Mapping[str, T], Generic[T]):
    """What is known by name of one kind, ours and the user's; it fills itself when first read.

    `homes` are our own modules of this kind; of a package, every module in it.
    """

    def __init__(self, kind: str, *homes: str):
        self.kind = kind
        self._homes = homes
        self._values: dict[str, T] = {}
        self._modules: dict[str, str] = {}
        self._filled = False

    def add(self, name: str, value: T, module: str) -> None:
        """Make `value` known; `module` is the name of the module that defines it.

        Raises:
            PluginError: the name is taken by another module.
        """
        other = self._modules.get(name)
        if other is not None and other != module:
            own, taken = (other, module) if _is_ours(module) else (module, other)
            raise PluginError(
                f"the {self.kind} {name!r} is defined in {_file(taken)} already; choose another "
                f"name for the one in {_file(own)}"
            )
        self._values[name], self._modules[name] = value, module

    def check(self, name: str) -> str:
        """The name if it is known.

        Raises:
            ValueError: it is not; the message has the nearest or all known names.
        """
        if name not in self:
            known = sorted(self)
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise ValueError(f"there is no {self.kind} {name!r}; {hint}")
        return name

    def guard(self, name: str, function: Callable[P, R]) -> Callable[P, R]:
        """What the named one made, with the errors of a user's file as in `guarded`."""
        return guarded(function, self._modules[name])

    def guard_items(self, name: str, items: Iterable[R]) -> Iterator[R]:
        """The items that the named one gives, with errors as in `guarded`."""
        return guarded_items(items, self._modules[name])

    def fingerprint(self, *names: str) -> dict[str, str]:
        """Source hashes of those of the named that are the user's, for the key of a result."""
        self._fill()
        own = [name for name in names if not _is_ours(self._modules[name])]
        return {f"{self.kind}/{name}": source_hash(self._modules[name]) for name in sorted(own)}

    def __getitem__(self, name: str) -> T:
        self._fill()
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        self._fill()
        return iter(list(self._values))

    def __len__(self) -> int:
        self._fill()
        return len(self._values)

    def _fill(self) -> None:
        if self._filled:
            load()
            return
        self._filled = True
        try:
            for home in self._homes:
                package = import_module(home)
                for found in pkgutil.iter_modules(getattr(package, "__path__", ())):
                    import_module(f"{home}.{found.name}")
            load()
        except BaseException:
            self._filled = False
            raise


def guarded(function: Callable[P, R], module: str) -> Callable[P, R]:
    """A function, whose errors name file and line (exit code 2) if `module` is a user's."""
    if _is_ours(module):
        return function

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return function(*arguments, **named)
        except Exception as error:
            blame(error, _file(module))

    return call


def guarded_items(items: Iterable[T], module: str) -> Iterator[T]:
    """Items that a user's function makes one by one, their errors as in `guarded`."""
    try:
        yield from items
    except Exception as error:
        if _is_ours(module):
            raise
        blame(error, _file(module))


def blame(error: Exception, file: str) -> NoReturn:
    """Raise the error of a user's file again, with its file and line.

    Raises:
        PluginError: always, unless the error is already one that qaq raised on purpose.
    """
    if isinstance(error, QaqError) and not isinstance(error, PluginError):
        raise error
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}:{error.lineno}"
    else:
        folder = Path(file).parent
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [f for f in frames if Path(f.filename).is_relative_to(folder)]
        place = f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else file
    what = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
    raise PluginError(f"{place}: {what}") from error


def start(folder: Path | None) -> None:
    """Begin a command: `folder` joins those in `QAQ_PATH`, for this process and its children.

    Raises:
        PluginError: it is not there.
    """
    os.environ.pop(SEEN, None)  # what another command read does not bind this one
    if folder is not None:
        others = os.environ.get(FOLDERS, "")
        os.environ[FOLDERS] = os.pathsep.join([str(folder.expanduser().absolute()), others])
        folders()


def folders() -> list[Path]:
    """The folders in `QAQ_PATH`, absolute. Raises PluginError: one of them is not there."""
    named = [text for text in os.environ.get(FOLDERS, "").split(os.pathsep) if text]
    found = list(dict.fromkeys(Path(text).expanduser().resolve() for text in named))
    for folder in found:
        if not folder.is_dir():
            raise PluginError(f"there is no folder {folder} ({FOLDERS} or --config-dir names it)")
    return found


def conf_dir() -> Path:
    """Our own folder of Hydra groups: inside the installed package, or at a checkout's root."""
    inside = Path(str(resources.files("qaq"))) / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "conf"


def conf_dirs() -> list[Path]:
    """All folders of Hydra groups: our own, those in `QAQ_PATH`, those of installed packages."""
    load()
    packaged = [Path(_file(module)).parent / "conf" for module in _installed()]
    return [conf_dir(), *folders(), *(path for path in packaged if path.is_dir())]


def options(group: str, suffix: str = ".yaml") -> dict[str, Path]:
    """The options of a group by name, from every folder; empty where there is no such group.

    Raises:
        PluginError: two folders have an option of the same name.
    """
    found: dict[str, Path] = {}
    for folder in conf_dirs():
        for file in sorted((folder / group).glob(f"*{suffix}")):
            if file.stem in found:
                raise PluginError(
                    f"{file}: the option {group}={file.stem} is {found[file.stem]} already; "
                    "rename yours"
                )
            found[file.stem] = file
    return found


def load() -> None:
    """Import the user's files, once in a process.

    Raises:
        PluginError: one cannot be imported, or is not what the parent process read.
    """
    path = os.environ.get(FOLDERS, "")
    if _STATE.get("path") == path:
        return
    _STATE["path"] = path  # first, since a file may read a registry while it is imported
    try:
        modules = [_import(module, module) for module in _installed()]
        modules += [_import_file(file, root) for root in folders() for file in _files(root)]
        seen = {_file(module.__name__): source_hash(module.__name__) for module in modules}
    except BaseException:
        _STATE.clear()
        raise
    expected = json.loads(os.environ.get(SEEN, "{}"))
    changed = [file for file in expected if seen.get(file) != expected[file]]
    if changed:
        raise PluginError(f"{', '.join(changed)} changed while qaq was running; start it again")
    os.environ[SEEN] = json.dumps(seen)


@functools.cache
def source_hash(module: str) -> str:
    """SHA-256 of a user's module and of what it imports from its own folder or package."""
    file = Path(_file(module))
    root = file.parents[module.count(".") + (file.name == "__init__.py")]
    inside = None if root in folders() else module.split(".", maxsplit=1)[0]
    digest = hashlib.sha256()
    for path in sorted(_sources(file, root, inside)):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


_STATE: dict[str, str] = {}


def _sources(file: Path, root: Path, inside: str | None) -> set[Path]:
    """A file and those under `root` that it imports, directly or not; `inside` one package."""
    found: set[Path] = set()
    left = [file]
    while left:
        path = left.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_bytes())):
            for name in _imported(node, path, root):
                if inside is None or name.split(".", maxsplit=1)[0] == inside:
                    place = root / name.replace(".", "/")
                    both = (place.with_name(f"{place.name}.py"), place / "__init__.py")
                    left += [candidate for candidate in both if candidate.is_file()]
    return found


def _imported(node: ast.AST, path: Path, root: Path) -> list[str]:
    """Full names of the modules that an import may read, parents included."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        here = path.relative_to(root).parts[: -node.level] if node.level else ()
        base = ".".join([*here, *([node.module] if node.module else [])])
        names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
    else:
        return []
    parts = [name.strip(".").split(".") for name in names]
    return [".".join(p[: n + 1]) for p in parts for n in range(len(p)) if p[0]]


def _files(root: Path) -> list[Path]:
    return [f for f in sorted(root.glob("*.py")) if not f.name.startswith(NOT_PLUGINS)]


def _import_file(file: Path, root: Path) -> ModuleType:
    """Import a file by its own name, so that files of one folder can import one another."""
    if not file.stem.isidentifier():
        raise PluginError(f"{file}: rename it; letters, digits and _ make the name of a module")
    if str(root) not in sys.path:
        sys.path.append(str(root))
        importlib.invalidate_caches()
    spec = importlib.util.find_spec(file.stem)
    if spec is None or Path(spec.origin or "").resolve() != file:
        other = spec.origin if spec else None
        raise PluginError(f"{file}: Python has a module {file.stem} already ({other}); rename it")
    return _import(file.stem, str(file))


def _import(module: str, file: str) -> ModuleType:
    try:
        return import_module(module)
    except Exception as error:
        blame(error, file)


@functools.cache
def _installed() -> tuple[str, ...]:
    return tuple(sorted({entry.module for entry in metadata.entry_points(group=GROUP)}))


def _is_ours(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] == "qaq"


def _file(module: str) -> str:
    """The file of an imported module; its name where there is none (a script that is typed in)."""
    found: Any = getattr(sys.modules.get(module), "__file__", None)
    return str(Path(found).resolve()) if found else module
