"""The rooms stand on floors: imports point downward, and nothing imports in a circle.

`python -m tests.test_rooms [src/qaq]` prints the figures and each arrow that points upward.
"""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import qaq

ROOT = Path(qaq.__file__).parent
FLOORS = (
    *("host", "store", "models", "data", "evidence", "page", "scoring", "selection", "training"),
    *(
        "evaluation",
        "synthesis",
        "embedding",
        "reporting",
        "studies",
        "tracking",
        "run",
        "plan",
        "api",
        "cli",
    ),
)
Graph = dict[str, set[str]]


def files(root: Path = ROOT) -> dict[str, ast.Module]:
    """Every module of the package, parsed."""
    found = {}
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        name = ".".join(p for p in parts if p != "__init__")
        if name:
            found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def imports(modules: dict[str, ast.Module]) -> Graph:
    """Which module imports which, wherever the import stands, also for types only."""
    graph: Graph = {name: set() for name in modules}
    for name, tree in modules.items():
        for wanted in _named(tree):
            path = wanted.removeprefix("qaq.") if wanted.startswith("qaq.") else None
            while path and path not in modules:
                path = path.rpartition(".")[0]
            if path and path != name:
                graph[name].add(path)
    return graph


def _named(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """The room of a module; what lies at the top belongs to the command line."""
    return module.split(".", maxsplit=1)[0] if "." in module else "cli"


def rooms(graph: Graph) -> Graph:
    """Which room imports which."""
    found: Graph = defaultdict(set)
    for name, wanted in graph.items():
        found[room(name)] |= {room(other) for other in wanted} - {room(name)}
    return dict(found)


def knots(graph: Graph) -> list[set[str]]:
    """The circles: sets of nodes that reach each other."""
    reach = {node: _reached(graph, node) for node in graph}
    found: list[set[str]] = []
    for node in graph:
        circle = {other for other in reach[node] if node in reach.get(other, set())}
        if circle and circle not in found:
            found.append(circle)
    return found


def _reached(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for other in graph.get(waiting.pop(), set()) - seen:
            seen.add(other)
            waiting.append(other)
    return seen


def upward(graph: Graph) -> list[tuple[str, str]]:
    """Arrows between rooms that point to the same floor's room or a higher one."""
    place = {name: number for number, name in enumerate(FLOORS)}
    return sorted((a, b) for a, wanted in graph.items() for b in wanted if place[b] > place[a])


def test_every_room_has_a_floor():
    assert {room(name) for name in files()} <= set(FLOORS)


def test_imports_between_rooms_point_downward():
    assert upward(rooms(imports(files()))) == []


def test_no_room_and_no_file_imports_in_a_circle():
    graph = imports(files())
    assert knots(graph) == []
    assert knots(rooms(graph)) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from qaq.store import tables", {"store.tables"}),
        ("def f():\n    from qaq.store.tables import read_json", {"store.tables"}),
        ("if TYPE_CHECKING:\n    from qaq.store import tables", {"store.tables"}),
        ("import qaq.store.tables as t", {"store.tables"}),
    ],
)
def test_the_walk_sees_an_import_wherever_it_stands(source, expected):
    modules = {"a": ast.parse(source), "store": ast.parse(""), "store.tables": ast.parse("")}
    assert imports(modules)["a"] == expected


def test_a_circle_is_seen():
    assert knots({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]


@pytest.mark.parametrize(
    "module",
    ["scoring.framing", "scoring.config", "selection.config", "selection.pool", "data.sources"],
)
def test_what_a_registry_fills_itself_from_can_be_the_first_to_be_imported(module):
    # a registry imports its room when it is asked for a name: at import that would close a circle
    first = [sys.executable, "-c", f"import qaq.{module}"]
    done = subprocess.run(first, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def report(root: Path) -> None:
    """Print the figures of a source tree."""
    graph = imports(files(root))
    houses = rooms(graph)
    print(f"{len(graph)} files, {len(houses)} rooms")
    print(f"{sum(map(len, houses.values()))} arrows between rooms, {len(upward(houses))} upward")
    print(f"rooms in circles: {[sorted(k) for k in knots(houses)]}")
    print(f"files in circles: {[sorted(k) for k in knots(graph)]}")
    for low, high in upward(houses):
        where = [
            f"{a} -> {b}" for a in graph for b in graph[a] if (room(a), room(b)) == (low, high)
        ]
        print(f"{low} -> {high}: {', '.join(sorted(where))}")


if __name__ == "__main__":
    report(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
