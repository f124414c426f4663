"""No term before its definition."""

from pathlib import Path

import pytest

from irlbook.authoring import glossary
from irlbook.errors import NotebookError
from tests.notebook_builder import notebook, save

TABLE = """# Glossary

| term | meaning | chapter |
|---|---|---|
| nat, nats | unit of information | [3](../chapters/03_b.ipynb) |
| soft backup | Bellman with a logarithm | 3 |
"""


@pytest.fixture
def book(tmp_path):
    def write(
        first="# 1\nA plan.", second="# 3\nA *nat* is a unit. A **soft backup** too.", **more
    ):
        (tmp_path / "docs").mkdir(exist_ok=True)
        (tmp_path / "docs/glossary.md").write_text(more.get("table", TABLE), encoding="utf-8")
        save(notebook("# First", first), tmp_path / "chapters/01_a.ipynb")
        save(notebook("# First: a nat", *(second if isinstance(second, tuple) else (second,))),
             tmp_path / "chapters/03_b.ipynb")  # fmt: skip
        save(notebook("# 0\nNats everywhere."), tmp_path / "chapters/00_tour.ipynb")
        return glossary.problems(tmp_path)

    return write


def test_a_book_that_defines_first_has_no_problem(book):
    assert book() == []


@pytest.mark.parametrize(
    "text",
    [
        "# 1\nIt costs two nats.",
        "# 1\nNATS are dear.",
        "# 1\nSoft backups are backups; soft backup it is.",
        "# 1\nChapter 2 has nats.",
    ],
)
def test_a_term_in_an_earlier_chapter_is_named_with_its_cell(book, text):
    found = book(text)
    assert found and all("chapter 1, cell 2 uses it before" in problem for problem in found)


@pytest.mark.parametrize(
    "text",
    [
        "# 1\nIn nats, which chapter 3 defines.",
        "# 1\nChapters 2 and 3 say what a soft backup is.",
        "# 1\n`nats` in code, $nats$ in a formula, [a link](nats.md).",
        "# 1\nA signature, natural and sinatra.",
        "# References\nKullback on nats.",
    ],
)
def test_code_links_references_and_a_sentence_that_sends_on_are_no_use(book, text):
    assert book(text) == []


def test_within_its_own_chapter_the_definition_comes_first(book):
    late = ("# 3\nA nat is small.", "# more\nA *nat* is a unit. A *soft backup* is one.")
    assert ["nat: chapter 3, cell 2 uses it" in p for p in book(second=late)] == [True]


def test_a_term_without_emphasis_is_defined_nowhere(book):
    assert any("defines it nowhere" in p for p in book(second="# 3\nA nat. A *soft backup*."))


@pytest.mark.parametrize(
    "row, word",
    [("| nat | no chapter |", "not a row"), ("| Nats | again | 3 |", "has a row already")],
)
def test_a_damaged_table_is_named_by_its_line(book, row, word):
    with pytest.raises(NotebookError, match=rf"glossary.md:7: .*{word}"):
        book(table=TABLE + row + "\n")


def test_a_chapter_that_does_not_exist_is_named(book):
    assert any("chapter 9 does not exist" in p for p in book(table=TABLE + "| x | y | 9 |\n"))


def test_the_book_uses_no_term_before_its_definition():
    assert glossary.problems(Path(__file__).parents[1]) == []
