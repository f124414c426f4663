"""docs/map.md: from a symbol to its function, and from a function to the chapters that use it."""

from pathlib import Path

import nbformat
import pytest

from irlbook.authoring import book_map, notebooks

ROOT = Path(__file__).parents[1]


def test_the_page_is_what_the_book_is():
    page = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    assert page == book_map.book_map(ROOT), "run irlbook notebooks map"


def notebook(*sources: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])


USES = {
    "from irlbook.mdp import Trajectories": "irlbook.mdp.Trajectories",
    "from irlbook import planning as p\np.q_values(1)": "irlbook.planning.q_values",
    "import irlbook\nirlbook.planning.q_values": "irlbook.planning.q_values",
    "%matplotlib inline\nfrom irlbook.envs import gridworld": "irlbook.envs.gridworld",
}


@pytest.mark.parametrize("source", USES)
def test_what_a_chapter_imports_or_reads_from_a_module_is_used(source):
    assert USES[source] in book_map.uses(notebook(source))


def test_an_import_of_one_cell_is_known_in_the_next():
    found = book_map.uses(notebook("from irlbook.posttraining import dpo", "dpo.dpo_loss(a, b)"))
    assert "irlbook.posttraining.dpo.dpo_loss" in found
    assert not any(name.startswith("numpy") for name in found)


@pytest.fixture
def book(tmp_path):
    for folder in ("irlbook/planning", "chapters", "docs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "irlbook" / "__init__.py").write_text("")
    (tmp_path / "irlbook" / "soft.py").write_text("def value(): ...\nclass Fit:\n    gap: float\n")
    (tmp_path / "irlbook" / "planning" / "hard.py").write_text("def value(): ...\n")
    (tmp_path / "docs" / "notation.md").write_text(
        "| symbol | in code | meaning |\n|---|---|---|\n| $V$ | `value` (S,) | worth |\n"
        "| $g$ | `Fit.gap` | gap |\n| $Z$ | | sum |\n| $s$ | `state` | state |\n"
    )
    notebooks.write(
        notebook("from irlbook import soft\nsoft.value()"), tmp_path / "chapters/03_a.ipynb"
    )
    return tmp_path


def test_a_symbol_leads_to_the_function_that_the_chapters_use(book):
    page = book_map.book_map(book)
    assert "| $V$ | `irlbook.soft.value` | [3](../chapters/03_a.ipynb) |" in page
    assert "`irlbook.planning.hard.value`" not in page
    assert "| $g$ | `irlbook.soft.Fit.gap` |  |" in page
    assert "$Z$" not in page and "$s$" not in page
    assert "| `irlbook.soft.value` | [3](../chapters/03_a.ipynb) |" in page


def test_a_name_offered_by_a_room_is_that_of_its_module(book):
    (book / "irlbook" / "planning" / "hard.py").write_text("def best(): ...\n")
    notebooks.write(notebook("from irlbook.planning import best"), book / "chapters/04_b.ipynb")
    assert "| `irlbook.planning.hard.best` | [4](../chapters/04_b.ipynb) |" in book_map.book_map(
        book
    )


def test_the_command_says_that_the_page_is_stale(call, book, monkeypatch):
    monkeypatch.chdir(book)
    assert call("notebooks", "map", "--check")[0] == 1
    assert call("notebooks", "map")[0] == 0
    assert call("notebooks", "map", "--check")[0] == 0
