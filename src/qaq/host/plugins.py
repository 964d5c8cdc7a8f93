"""Files of one's own: a rule, a metric, a framing, a data source, a benchmark, a judge.

Each is one Python file. A decorator (`qaq.selection.config.rule`, `qaq.scoring.metrics.metric`, …)
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
from types import FrameType, ModuleType
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

from qaq.host.errors import QaqError, UserError
from qaq.host.sources import other_taken, placed, sources

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
        self._makers: dict[str, ModuleType | None] = {}
        self._filled = False

    def add(self, name: str, value: T, module: str) -> None:
        """Make `value` known; `module` is the name of the module that defines it (`owner`).

        Raises:
            PluginError: the name is taken, by another module or in the same file.
        """
        other, maker = self._modules.get(name), sys.modules.get(module)
        # the module is another one where an import that failed is tried again
        twice = other == module and module in _PLUGINS and self._makers[name] is maker
        if other is not None and (twice or other != module):
            own, taken = (other, module) if _is_ours(module) else (module, other)
            raise PluginError(
                f"the {self.kind} {name!r} is defined in {_file(taken)} already; choose another "
                f"name for the {'second' if twice else f'one in {_file(own)}'}"
            )
        self._values[name], self._modules[name], self._makers[name] = value, module, maker

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
        except (Exception, SystemExit) as error:
            blame(error, _file(module))

    return call


def guarded_items(items: Iterable[T], module: str) -> Iterator[T]:
    """Items that a user's function makes one by one, their errors as in `guarded`."""
    try:
        yield from items
    except (Exception, SystemExit) as error:
        if _is_ours(module):
            raise
        blame(error, _file(module))


def owner(module: str) -> str:
    """The user's file that is being imported, if it makes what is registered; else `module`.

    A file may register what a helper or a library made with its arguments, so it is its hash, with
    that of what it imports, that says what is meant.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name == "<module>" and (name in _PLUGINS or _is_ours(name)):
            return module if _is_ours(name) else name
        frame = frame.f_back
    return module


def blame(error: Exception | SystemExit, file: str) -> NoReturn:
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
        inside = [f for f in frames if Path(f.filename).is_relative_to(folder)]
        theirs = [  # not what is installed in an environment that lies in the folder
            f for f in inside if "site-packages" not in Path(f.filename).relative_to(folder).parts
        ]
        place = f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else file
    what = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
    if isinstance(error, SystemExit):
        what = (
            "it ended the program (sys.exit, or arguments that it reads); put what it does when it "
            "is run under if __name__ == '__main__', or begin the file's name with _"
        )
    raise PluginError(f"{place}: {what}") from error


_given: list[str] = []


def option() -> list[str]:
    """What a command that is to be run again has to say of the folder that this one was given."""
    return [*_given]


def start(folder: Path | None) -> None:
    """Begin a command: `folder` joins those in `QAQ_PATH`, for this process and its children.

    Raises:
        PluginError: it is not there.
    """
    os.environ.pop(SEEN, None)  # what another command read does not bind this one
    _given[:] = [] if folder is None else ["--config-dir", str(folder)]
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
    found = [conf_dir(), *folders(), *(path for path in packaged if path.is_dir())]
    return list(dict.fromkeys(found))  # two modules of a package share its folder


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
        files = [file for root in folders() for file in _files(root)]
        sys.path += [str(root) for root in folders() if str(root) not in sys.path]
        importlib.invalidate_caches()
        _PLUGINS.update(_installed(), (file.stem for file in files))
        modules = [_import(module, module) for module in _installed()]
        modules += [_import_file(file) for file in files]
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
    """SHA-256 of a user's module and of what it imports from its package or the user's folders.

    Raises:
        PluginError: Python takes something that it imports from another place.
    """
    file = Path(_file(module))
    root = file.parents[module.count(".") + (file.name == "__init__.py")]
    roots = list(dict.fromkeys([root, *folders()])) if root in folders() else [root]
    inside = None if root in folders() else module.split(".", maxsplit=1)[0]
    digest = hashlib.sha256()
    for place, path in sorted(sources(file, roots, inside)):
        if path != file and (other := other_taken(place, path)):
            raise PluginError(f"{path}: Python takes {other} in its place; rename one of the two")
        digest.update(f"{place}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


_STATE: dict[str, str] = {}
_PLUGINS: set[str] = set()  # names of the user's modules that are imported by `load`


def _files(root: Path) -> list[Path]:
    return [f for f in sorted(root.glob("*.py")) if not f.name.startswith(NOT_PLUGINS)]


def _import_file(file: Path) -> ModuleType:
    """Import a file by its own name, so that files of one folder can import one another."""
    if not file.stem.isidentifier():
        raise PluginError(f"{file}: rename it; letters, digits and _ make the name of a module")
    spec = importlib.util.find_spec(file.stem)
    if spec is None or placed(spec.origin or "") != file:
        other = spec.origin if spec else None
        raise PluginError(f"{file}: Python has a module {file.stem} already ({other}); rename it")
    return _import(file.stem, str(file))


def _import(module: str, file: str) -> ModuleType:
    try:
        return import_module(module)
    except (Exception, SystemExit) as error:
        blame(error, file)


@functools.cache
def _installed() -> tuple[str, ...]:
    return tuple(sorted({entry.module for entry in metadata.entry_points(group=GROUP)}))


def _is_ours(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] == "qaq"


def _file(module: str) -> str:
    """The file of an imported module; its name where there is none (a script that is typed in)."""
    found: Any = getattr(sys.modules.get(module), "__file__", None)
    return str(placed(found)) if found else module
