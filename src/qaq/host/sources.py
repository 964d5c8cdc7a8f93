"""Which files a Python file imports from the same folder or package: what its hash has to cover."""

import ast
import importlib.util
import sys
from pathlib import Path

Source = tuple[Path, Path]  # a file's place below the root that has it, and the file


def sources(file: Path, roots: list[Path], inside: str | None) -> set[Source]:
    """A file under the first of `roots`, and what it imports from them, directly or not.

    The root of the importing file comes first. `inside`: only what is of that package.
    """
    found: set[Source] = set()
    left = [(file.relative_to(roots[0]), file)]
    while left:
        place, path = left.pop()
        if (place, path) in found:
            continue
        found.add((place, path))
        own = path.parents[len(place.parts) - 1]
        for node in ast.walk(ast.parse(path.read_bytes())):
            for name in _imported(node, place):
                if inside is None or name.split(".", maxsplit=1)[0] == inside:
                    left += _found(name, [own, *roots])
    return found


def other_taken(place: Path, path: Path) -> str | None:
    """The file that Python has, or would import, under the name of another file; None: the same."""
    parts = place.parent.parts if place.name == "__init__.py" else place.with_suffix("").parts
    name = ".".join(parts)
    if name in sys.modules:
        taken = getattr(sys.modules[name], "__file__", None) or f"its own module {name}"
    else:  # not imported yet; the parts of a package are looked for in the package alone
        spec = None if "." in name else importlib.util.find_spec(name)
        taken = spec.origin if spec and spec.origin else str(path)
    return None if placed(taken) == placed(path) else str(taken)


def placed(file: str | Path) -> Path:
    """The file in its resolved folder; a link to a file stands for the file where it lies."""
    return Path(file).parent.resolve() / Path(file).name


def _found(name: str, roots: list[Path]) -> list[Source]:
    """The file of a module, in the first root that has it."""
    place = Path(name.replace(".", "/"))
    both = (place.with_name(f"{place.name}.py"), place / "__init__.py")
    for root in roots:
        if there := [(part, root / part) for part in both if (root / part).is_file()]:
            return there
    return []


def _imported(node: ast.AST, place: Path) -> list[str]:
    """Full names of the modules that an import may read, parents included."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        here = place.parts[: -node.level] if node.level else ()
        base = ".".join([*here, *([node.module] if node.module else [])])
        names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
    else:
        return []
    parts = [name.strip(".").split(".") for name in names]
    return [".".join(p[: n + 1]) for p in parts for n in range(len(p)) if p[0]]
