"""The rules of notebooks: every notebook of the book keeps them, and each rule bites."""

import re
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from notebook_builder import LAST, chapter, figure, notebook, save

from irlbook.authoring import lint as rules
from irlbook.authoring.lint import lint, notebooks_of
from irlbook.authoring.repository import TABLE, chapter_table, chapters

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("path", notebooks_of(ROOT), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_notebook_keeps_every_rule(path):
    assert lint(path) == []


def test_the_table_in_the_readme_is_fresh():
    found = TABLE.search((ROOT / "README.md").read_text(encoding="utf-8"))
    if found is None:
        pytest.skip("the README holds no table yet")
    assert found.group(2) == chapter_table(chapters(ROOT)), "run: irlbook notebooks table"


def test_the_contents_of_the_site_hold_each_chapter_once():
    patterns = re.findall(
        r"^chapters/\S+$", (ROOT / "index.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    for path in (ROOT / "chapters").glob("*.ipynb"):
        held = [one for one in patterns if fnmatch(f"chapters/{path.stem}", one)]
        assert len(held) == 1, f"{path.stem}: add its pattern to a part of index.md"


# Planted faults -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    save(notebook("# Exercises"), tmp_path / "exercises" / "03_price.ipynb")
    return tmp_path / "chapters"


def prints(text: str, name: str = "stdout") -> list[NotebookNode]:
    return [new_output("stream", name=name, text=text)]


def code(index: int = 5, **fields: object) -> Callable[[NotebookNode], None]:
    return lambda nb: nb.cells[index].update(fields)


def text(source: str, index: int = -1) -> Callable[[NotebookNode], None]:
    """Append to a markdown cell."""
    return lambda nb: nb.cells[index].update(source=f"{nb.cells[index].source}\n{source}")


def without(part: str, index: int) -> Callable[[NotebookNode], None]:
    return lambda nb: nb.cells[index].update(source=nb.cells[index].source.replace(part, ""))


def tag_two(nb: NotebookNode) -> None:
    for cell in nb.cells[4:6]:
        cell.metadata["tags"] = ["nbval-ignore-output"]


def old_version(nb: NotebookNode) -> None:
    nb.metadata.irlbook.version = "0.0.1"


def no_version(nb: NotebookNode) -> None:
    del nb.metadata["irlbook"]["version"]


def widget_state(nb: NotebookNode) -> None:
    nb.metadata["widgets"] = {}


def figure_last(nb: NotebookNode) -> None:
    nb.cells[6].outputs = [figure()]


def far_from_text(nb: NotebookNode) -> None:
    """x = 1, y = 2, a claim: nothing says what it is about."""
    nb.cells.insert(7, new_code_cell('verdict("y is above x", y > x)'))


ERROR = new_output("error", ename="ValueError", evalue="no", traceback=[])
PLANTED = [
    ("executed_in_order", code(execution_count=None), "cell 6 (x = 1) was not executed"),
    ("executed_in_order", code(execution_count=7), "execution count 7 instead of 5"),
    ("no_errors", code(outputs=[ERROR]), "stores an error: ValueError"),
    ("no_warnings", code(outputs=prints("10%|#", "stderr")), "wrote to stderr: 10%|#"),
    ("no_warnings", code(outputs=prints("UserWarning: old\n")), "shows a warning: UserWarning"),
    ("no_paths_or_addresses", code(source='open("/home/ada/x.csv")'), "one computer: /home/ada"),
    ("no_paths_or_addresses", text("see C:\\Users\\ada"), "one computer: C:\\Users"),
    ("no_paths_or_addresses", code(outputs=prints("in /opt/data/x\n")), "absolute path: /opt/data"),
    ("no_paths_or_addresses", code(outputs=prints("<f at 0x7f3a2b11>")), "address: 0x7f3a2b11"),
    ("few_ignored", tag_two, "2 of 6 code cells are tagged"),
    ("is_normalised", old_version, "built with irlbook 0.0.1"),
    ("is_normalised", no_version, "not built"),
    ("is_normalised", widget_state, "not as the build leaves it"),
    ("is_normalised", code(id="b6e1"), "not as the build leaves it"),
    ("figures_have_alt", code(3, outputs=[figure(alt="")]), "figure without alt text"),
    ("figures_have_alt", code(3, outputs=[figure("image/svg+xml")]), "shows image/svg+xml"),
    (
        "figures_have_alt",
        code(outputs=[new_output("display_data", data={"text/html": "<svg>"})]),
        "svg inside HTML",
    ),
    ("figures_are_stored", code(3, outputs=[]), "calls show, but no figure is stored"),
    ("figures_are_asserted", code(4, source="x = 0"), "asserts nothing"),
    ("figures_are_asserted", figure_last, "cell 7 (y = 2) shows a figure"),
    ("links_exist", text("[a](gone.md)"), "links to gone.md, which does not exist"),
    ("links_exist", text('<a href="gone.html">a</a>'), "links to gone.html, which does not"),
    ("links_exist", text("![ ](../exercises/03_price.ipynb)"), "picture without alt text"),
    ("links_exist", text('<img src="../exercises/03_price.ipynb">'), "picture without alt text"),
    ("links_exist", text("![a](https://example.org/a.png)"), "picture from the network"),
    ("links_exist", text("![a](attachment:a.png)"), "which is not attached"),
    ("installs_nothing", code(source="!pip install numpy"), "installs packages"),
    ("installs_nothing", code(source="%conda install numpy"), "installs packages"),
    ("names_exist", code(source="x ="), "is not Python"),
    ("names_exist", code(source="plotting.nothing()"), "uses irlbook.plotting.nothing"),
    ("names_exist", code(source="irlbook.stats.verdikt.x"), "uses irlbook.stats.verdikt"),
    ("names_exist", code(source="import irlbook.nothing as n"), "imports irlbook.nothing"),
    ("names_exist", code(source="from irlbook import nothing"), "imports irlbook.nothing"),
    ("names_exist", code(source="from irlbook.stats import no"), "imports irlbook.stats.no"),
    (
        "names_exist",
        code(source="from irlbook.stats import PublishedResult as P\nP.nothing"),
        "uses irlbook.stats.PublishedResult.nothing",
    ),
    ("begins_as_chapter", lambda nb: nb.cells.pop(0), "first cell is not a heading"),
    ("begins_as_chapter", lambda nb: nb.cells.clear(), "first cell is not a heading"),
    ("begins_as_chapter", without("<!-- /cost -->", 0), "no place for the cost"),
    (
        "begins_as_chapter",
        code(0, source="# 3\n<!-- cost --> <!-- /cost -->"),
        "cost is not filled in",
    ),
    ("begins_as_chapter", without("irlbook.doctor()", 1), "does not call irlbook.doctor()"),
    ("has_sections", without("## Summary", -1), "no section called Summary"),
    ("has_sections", without("## References", -1), "no section called References"),
    ("has_sections", without("## Exercises", -1), "no section called Exercises"),
    ("has_sections", without("../exercises/", -1), "no link to ../exercises/"),
    ("has_sections", without("**Is this normal?**", -1), "no box"),
    ("visible_cells_are_short", code(source="x = 1\n" * 41), "shows 41 lines of code"),
    ("cells_are_short", code(source="x = 1\n" * 61), "has 61 lines of code"),
    ("little_code_is_visible", code(source="x = 1\n" * 30), "of the page is visible code"),
    ("serving_code_is_folded", code(source="assert x\nprint(x)"), "only plots, asserts"),
    ("serving_code_is_folded", code(4, metadata={}), "only plots, asserts or tabulates"),
    ("printed_text_fits", code(outputs=prints("-" * 101)), "prints a line of 101 characters"),
    ("claims_follow_prose", far_from_text, "claims something after 2 cells of code"),
]


def test_a_good_chapter_has_no_problems(folder):
    assert lint(save(chapter(), folder / "03_price.ipynb")) == []


@pytest.mark.parametrize(("rule", "plant", "message"), PLANTED)
def test_rule_finds_the_planted_fault(folder, monkeypatch, rule, plant, message):
    nb = chapter()
    plant(nb)
    path = save(nb, folder / "03_price.ipynb")
    assert any(message in problem for problem in lint(path))
    others = tuple(r for r in rules.RULES["chapter"] if r.__name__ != rule)
    monkeypatch.setitem(rules.RULES, "chapter", others)
    assert not any(message in problem for problem in lint(path)), "another rule says the same"


def test_each_rule_has_a_planted_fault():
    assert {rule for rule, _, _ in PLANTED} == {rule.__name__ for rule in rules.RULES["chapter"]}


@pytest.mark.parametrize(
    "plant",
    [
        code(source="plotting = 3\nplotting.real"),  # no longer the module
        code(source="def f(stats):\n    return stats.real"),
        code(source="%matplotlib inline\n!ls\nx = 1"),
        code(source="%%time\nnot python"),
        code(source="from irlbook.stats import PublishedResult as P\nP.paper\nP().verdict.x"),
        code(source="import irlbook.stats\nirlbook.stats.verdict"),
        code(outputs=prints("1/2/3, a/b/c, </td></tr>, https://a.org/home/b, ~/x/y, 0x1F\n")),
        text("[up](#summary) [web](https://example.org/home/x) [mail](mailto:a@b.org)"),
        text("```\n[a](gone.md)\n```"),
        lambda nb: nb.cells[5].metadata.update(tags=["nbval-ignore-output"]),
    ],
)
def test_what_is_allowed_passes(folder, plant):
    nb = chapter()
    plant(nb)
    assert lint(save(nb, folder / "03_price.ipynb")) == []


def test_an_attached_picture_is_allowed(folder):
    nb = chapter()
    nb.cells[-1].source += "\n![a plot](attachment:a.png)"
    nb.cells[-1]["attachments"] = {"a.png": {"image/png": "AAAA"}}
    assert lint(save(nb, folder / "03_price.ipynb")) == []


def test_names_that_need_a_missing_package_are_told(folder, monkeypatch):
    def fail(name):
        raise ModuleNotFoundError("No module named 'other'", name="other")

    monkeypatch.setattr(rules.importlib, "import_module", lambda n: rules.irlbook)
    assert rules._missing("irlbook") is None
    monkeypatch.setattr(
        rules.importlib, "import_module", lambda n: rules.irlbook if n == "irlbook" else fail(n)
    )
    assert rules._missing("irlbook.neverland") == (
        "irlbook.neverland, which needs other, and that is not installed"
    )


def test_solutions_and_exercises_keep_fewer_rules(tmp_path):
    nb = chapter()
    nb.cells[-1] = new_markdown_cell("No sections here.", id="c-007")
    nb.cells[4].source = "x = 0"  # nothing asserted after the figure
    assert lint(save(nb, tmp_path / "solutions" / "03_price.ipynb")) == []
    stubs = notebook("# 3", "def f():\n    raise NotImplementedError", LAST)
    assert lint(save(stubs, tmp_path / "exercises" / "03_price.ipynb")) == []
    stubs.cells.append(new_code_cell("!pip install irlbook"))
    (problem,) = lint(save(stubs, tmp_path / "exercises" / "03_price.ipynb"))
    assert "installs packages" in problem
    # the kind can be told, whatever the folder is called
    assert len(lint(tmp_path / "exercises" / "03_price.ipynb", kind="chapter")) > 3
