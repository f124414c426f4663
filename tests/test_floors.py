"""The house of the README: no module imports from a floor above its own, and none in a circle."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def modules(package: Path) -> dict[str, Path]:
    """Each module of a package by its dotted name; a package stands for its `__init__.py`."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """(module, line) of each import of the package's own, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")[: None if path.name == "__init__.py" else -1]
                above = parts[: len(parts) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            targets = [f"{base}.{alias.name}" for alias in node.names]
            targets = [target if target in known else base for target in targets]
        for target in targets:
            if target in known and target != name:
                yield target, node.lineno


def floors(readme: str) -> dict[str, int]:
    """The floor of each room, from the README's table."""
    rows = re.findall(r"^\| (\d) \w+ \| ([^|]+) \|", readme, re.MULTILINE)
    rooms = {room: int(floor) for floor, cell in rows for room in re.findall(r"`(\w+)/?`", cell)}
    assert sorted({int(floor) for floor, _ in rows}) == list(range(7)), "the table was not found"
    return rooms


def upward_arrows(package: Path, floor_of: dict[str, int]) -> list[str]:
    """Each import of a module from a floor above its own."""
    known = modules(package)

    def floor(module: str) -> int:
        return floor_of[module.split(".")[1]] if "." in module else 0  # the package's own front

    return [
        f"{path.relative_to(package.parent)}:{line}: floor {floor(name)} imports {target}, "
        f"which is on floor {floor(target)}"
        for name, path in known.items()
        for target, line in imports(name, path, known)
        if floor(target) > floor(name)
    ]


def circle(package: Path) -> list[str]:
    """A circle of modules that import one another, or nothing."""
    known = modules(package)
    graph = {name: {t for t, _ in imports(name, path, known)} for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_room_has_its_floor_in_the_readme():
    rooms = {name.split(".")[1] for name in modules(ROOT / "irlbook") if "." in name}
    listed = set(floors((ROOT / "README.md").read_text(encoding="utf-8")))
    assert listed == {room for room in rooms if not room.startswith("_")}


def test_every_folder_without_a_floor_is_named_below_the_table():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "irlbook").glob("*/[!_]*")}
    bare = folders - set(floors(readme)) - {"__pycache__"}
    (sentence,) = re.findall(r"^Two folders hold data.+", readme, re.MULTILINE)
    assert bare == set(re.findall(r"`(\w+)/`", sentence))


def test_no_module_imports_from_a_floor_above_its_own():
    floor_of = floors((ROOT / "README.md").read_text(encoding="utf-8"))
    assert not upward_arrows(ROOT / "irlbook", {**floor_of, "_front": 0, "__main__": 6})


def test_no_modules_import_one_another_in_a_circle():
    assert not circle(ROOT / "irlbook")


@pytest.fixture
def house(tmp_path):
    """A package of two floors, `ground` below `roof/`, and how to write a file of it."""
    package = tmp_path / "house"

    def write(name: str, text: str) -> Path:
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return package

    write("__init__.py", "")
    write("ground.py", "")
    write("roof/__init__.py", "")
    write("roof/tiles.py", "from house.ground import stone\nimport house.roof.beam")
    write("roof/beam.py", "from house import ground")
    return write


UPWARD = [
    "from house.roof import tiles",
    "from house.roof.tiles import clay",
    "import house.roof.tiles",
    "from house import roof",
    "from .roof import tiles",
    "def f():\n    from house.roof.tiles import clay",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.roof.beam import oak",
]


@pytest.mark.parametrize("text", UPWARD)
def test_a_planted_arrow_against_the_floors_is_seen(house, text):
    package = house("roof/window.py", "from house.ground import glass")
    assert upward_arrows(package, {"ground": 0, "roof": 1}) == []
    house("ground.py", text)
    (found,) = upward_arrows(package, {"ground": 0, "roof": 1})
    line = text.count("\n") + 1
    assert found.startswith(f"house/ground.py:{line}: floor 0 imports house.roof")


CIRCULAR = [
    "from house.roof.tiles import clay",
    "from house.roof import tiles",
    "from . import tiles",
    "from .tiles import clay",
    "class A:\n    def f(self):\n        import house.roof.tiles",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.roof.tiles import clay",
]


@pytest.mark.parametrize("text", CIRCULAR)
def test_a_planted_circle_is_seen(house, text):
    package = house("roof/window.py", "from house.roof.tiles import clay")
    assert circle(package) == []
    house("roof/beam.py", text)
    assert set(circle(package)) == {"house.roof.tiles", "house.roof.beam"}
