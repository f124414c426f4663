"""No term before its definition: `docs/glossary.md` against the text of the chapters.

A row of the glossary names a term (and, after commas, its other forms), what it means, and the
chapter that defines it. The definition is the first text cell there that sets the term in
*emphasis*. No chapter before, and no cell before that one, may use the term; a sentence may that
sends the reader on ("chapter 9 defines it") or names the chapter of the definition. The tour
(chapter 0) is a trailer and stands outside, as do the first cell of a chapter, which says what will
be learned, its references and its exercises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from irlbook.authoring.notebooks import read
from irlbook.errors import NotebookError

__all__ = ["GLOSSARY", "Term", "problems", "read_glossary"]

GLOSSARY = Path("docs/glossary.md")

_ROW = re.compile(r"^\|(?P<forms>[^|]+)\|(?P<meaning>[^|]+)\|\s*\[?(?P<chapter>\d+)\b[^|]*\|\s*$")
_NO_PROSE = re.compile(
    r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|<!--.*?-->|\]\([^)]*\)", re.DOTALL
)
_SENTENCE = re.compile(r"(?<=[.!?:;])\s+|\n\s*\n|\n[-*|>]\s*")
_CHAPTER = re.compile(r"\bchapters?\s+(\d+)(?:\s*(?:,|and|to|–|-)\s*(\d+))*", re.IGNORECASE)
_BACK_MATTER = re.compile(r"^#+\s.*\b(?:References|Exercises)\b", re.MULTILINE)


@dataclass(frozen=True)
class Term:
    """One row: the forms of a term, its meaning, and the number of the chapter that defines it."""

    forms: tuple[str, ...]
    meaning: str
    chapter: int

    @property
    def used(self) -> re.Pattern[str]:
        """Any of its forms as whole words."""
        return re.compile(rf"(?<![\w-])(?:{self._forms})(?![\w-])", re.IGNORECASE)

    @property
    def defined(self) -> re.Pattern[str]:
        """Any of its forms in emphasis."""
        return re.compile(rf"(\*\*|\*|_)[^*_\n]*?\b(?:{self._forms})\b[^*_\n]*?\1", re.IGNORECASE)

    @property
    def _forms(self) -> str:
        return "|".join(rf"{re.escape(form)}s?" for form in sorted(self.forms, key=len)[::-1])


def read_glossary(path: Path) -> list[Term]:
    """The rows of the glossary, in its order.

    Raises:
        NotebookError: no such file, a row that cannot be read, or a form that stands twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise NotebookError(f"{path}: cannot be read ({error.strerror})") from error
    terms: list[Term] = []
    for number, line in enumerate(lines, start=1):
        if not line.startswith("|") or re.match(r"^\|\s*(?:term\b|:?-)", line):
            continue
        if not (row := _ROW.match(line)):
            raise NotebookError(
                f"{path}:{number}: not a row; write | term, other form | meaning | chapter |"
            )
        forms = tuple(form.strip() for form in row["forms"].split(",") if form.strip())
        known = {form.lower() for term in terms for form in term.forms}
        if double := [form for form in forms if form.lower() in known]:
            raise NotebookError(f"{path}:{number}: {double[0]!r} has a row already")
        terms.append(Term(forms, row["meaning"].strip(), int(row["chapter"])))
    return terms


def problems(root: Path) -> list[str]:
    """Every term that is used before its definition, or defined nowhere.

    Args:
        root: the checkout, with docs/glossary.md and chapters/.
    """
    terms = read_glossary(root / GLOSSARY)
    texts = {
        int(path.name[:2]): _prose(path)
        for path in sorted((root / "chapters").glob("[0-9]*.ipynb"))
    }
    return [problem for term in terms for problem in _problems_of(term, texts)]


def _prose(path: Path) -> list[tuple[int, str]]:
    """(cell, its text) of a chapter's text cells, without code, formulas, front and back matter."""
    found = []
    for index, cell in enumerate(read(path).cells):
        if cell.cell_type == "markdown" and index:  # the first says what will be learned
            end = _BACK_MATTER.search(cell.source)
            text = cell.source[: end.start()] if end else cell.source
            found.append((index, _NO_PROSE.sub(" ", text)))
            if end:
                break
    return found


def _problems_of(term: Term, texts: Mapping[int, Sequence[tuple[int, str]]]) -> Iterator[str]:
    name = term.forms[0]
    home = texts.get(term.chapter)
    if home is None:
        yield f"{name}: chapter {term.chapter} does not exist"
        return
    place = next((index for index, text in home if term.defined.search(text)), None)
    if place is None:
        yield f"{name}: chapter {term.chapter} never sets it in *emphasis*, so defines it nowhere"
        return
    for number, cells in texts.items():
        if not 0 < number <= term.chapter:
            continue
        for index, text in cells:
            if number == term.chapter and index >= place:
                break
            for sentence in _SENTENCE.split(text):
                if term.used.search(sentence) and not _sends_on(sentence, term.chapter):
                    short = " ".join(sentence.split())[:80]
                    yield (
                        f"{name}: chapter {number}, cell {index + 1} uses it before its "
                        f"definition (chapter {term.chapter}, cell {place + 1}): {short!r}"
                    )


def _sends_on(sentence: str, chapter: int) -> bool:
    """Whether a sentence names the chapter of the definition, or a later one."""
    return any(
        int(number) >= chapter
        for found in _CHAPTER.finditer(sentence)
        for number in re.findall(r"\d+", found.group())
    )
