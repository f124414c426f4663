"""The face of the library: what is public is listed, and to be had from its room."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import irlbook
from irlbook.authoring import fronts
from irlbook.errors import MissingMarksError

PACKAGE = Path(irlbook.__file__).parent
ROOMS = sorted(
    path.parent.name
    for path in PACKAGE.glob("*/__init__.py")
    if path.parent.name not in fronts.NO_ROOMS
)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_public_name_is_listed_in_its_module_and_its_room():
    stale = [str(path.relative_to(PACKAGE)) for path in fronts.renewed(PACKAGE.parent)]
    assert not stale, "run python -m irlbook.authoring.fronts, then ruff format irlbook"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_offers_what_its_modules_define(room):
    package = import_module(f"irlbook.{room}")
    for module, names in fronts.offers(PACKAGE / room).items():
        home = import_module(f"irlbook.{room}.{module}")
        assert set(names) <= set(home.__all__)
        for name in names:
            assert getattr(package, name) is getattr(home, name), name
            assert name in package.__all__ and name in dir(package)


def test_the_package_offers_every_room_after_one_import():
    there = {path.stem for path in PACKAGE.glob("*.py") if path.stem[0] != "_"} | {*ROOMS, "cli"}
    assert set(irlbook.__all__) == there | {"doctor"}
    code = "import irlbook; print(irlbook.planning.value_iteration.__module__)"
    assert run(code) == "irlbook.planning"
    with pytest.raises(AttributeError, match="no attribute 'plannning'"):
        irlbook.plannning  # noqa: B018


def test_a_front_loads_nothing_heavy():
    rooms = ", ".join(f"irlbook.{room}" for room in ROOMS if room != "envs")  # it registers worlds
    heavy = "('torch', 'transformers', 'gymnasium', 'matplotlib', 'IPython', 'nbformat')"
    code = f"import sys, irlbook, {rooms}; print([m for m in {heavy} if m in sys.modules])"
    assert run(code) == "[]"


MODULE = '''"""A module."""

import numpy as np

LIMIT: int = 3
_SECRET = 4
Alias = dict[str, int]


def shown(): ...


class Shown: ...


def _hidden(): ...
'''


def test_public_is_what_is_defined_without_an_underscore():
    assert fronts.definitions(MODULE) == ["Alias", "LIMIT", "Shown", "shown"]
    assert fronts.definitions(MODULE, callables=True) == ["Shown", "shown"]


def test_the_list_is_written_after_the_imports_and_only_once():
    once = fronts.with_all(MODULE)
    assert once.index("import numpy") < once.index("__all__") < once.index("LIMIT")
    assert fronts.with_all(once) == once
    more = once + "\n\ndef late(): ...\n"
    scope: dict[str, object] = {}
    exec(compile(fronts.with_all(more), "module", "exec"), scope)
    assert scope["__all__"] == ["Alias", "LIMIT", "Shown", "late", "shown"]


def test_a_name_of_two_modules_or_of_a_module_is_had_from_its_module(tmp_path):
    (tmp_path / "a.py").write_text("def a(): ...\ndef twice(): ...\ndef once(): ...\nX = 1\n")
    (tmp_path / "b.py").write_text("def twice(): ...\n")
    assert fronts.offers(tmp_path) == {"a": ["once"], "b": []}


def test_a_room_without_a_front_is_told_what_to_add():
    with pytest.raises(MissingMarksError, match="front"):
        fronts.with_front('"""A room."""\n', {})
