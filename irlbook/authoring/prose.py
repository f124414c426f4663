"""What a machine can hear of a chapter's prose: the book's own vocabulary, and proselint.

`docs/style.md` says how the book is written and why. This file holds the part of it that can be
looked for: private words where the field has a standard one, "a" where "per" is meant, "who" as a
conditional, and sentences too long to be read at once. proselint, a linter of English prose, adds
the mistakes that writers of every book make. It comes with the extra `test`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from nbformat import NotebookNode

from irlbook.authoring.notebooks import REFERENCES, at
from irlbook.errors import MissingDependencyError

__all__ = [
    "LONGEST_SENTENCE",
    "VOCABULARY",
    "Word",
    "finds_of_proselint",
    "private_words",
    "prose_of",
    "sentences_that_are_too_long",
]

LONGEST_SENTENCE = 45  # words; the mean of a chapter lies near 15
_UNITS = (
    "nats?|bits?|mistakes?|points?|tokens?|steps?|seconds|labels?|pairs?|samples?|numbers?|words?"
    "|sentences?|rewards?|comparisons?|responses?|draws?|queries|updates?|iterations?"
)
_WHOLES = (
    "token|step|response|pair|prompt|batch|seed|second|minute|sentence|label|state|action|episode"
    "|iteration|round|query|run|word|draw|update|trajectory|walk"
)


class Word(NamedTuple):
    """A way of saying something that the book avoids, and what it says instead."""

    pattern: str  # a regular expression, case-insensitive
    say: str


VOCABULARY = (
    Word(r"\bmend(?:s|ed|ing)?\b", "fix, repair or correct"),
    Word(r"\bdear(?:er|est|ly)?\b", "expensive, costly"),
    Word(r"\bplanted\b", "deliberate, known"),
    Word(r"\bthrows? (?:more|fewer|less|many) dice\b", "has a larger (smaller) variance"),
    Word(r"\bturned labels?\b|\blabels? (?:is|are|was|were) turned\b", "flipped or swapped"),
    Word(r"\bwell-meant\b|\bdullest\b", "plain, simplest"),
    Word(r"(?:^|[.:;]\s+)who (?!is\b|are\b|was\b|were\b)\w+s\b[^.?!]*[.;]", "if you …"),
    Word(rf"\b(?:{_UNITS}) an? (?:{_WHOLES})\b", "per, as in 'nats per token'"),
    Word(rf"\b(?:once|twice|times) an? (?:{_WHOLES})\b", "once per …"),
    Word(r"\bbut for an?\b", "except for, up to"),
    Word(r"\bin the mean\b", "on average"),
    Word(r"\bthere is no more to be had\b|\bno more is to be had\b", "say what the limit is"),
)

_CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)
_MATHS = re.compile(r"\$\$.*?\$\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}|\$[^$]*\$", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_TAG = re.compile(r"</?[a-z][^>]*>")
_BULLET = re.compile(r"^\s*(?:[-*]|\d+\.)\s+")


def prose_of(source: str) -> list[str]:
    """The paragraphs of a Markdown cell, without tables; X stands for mathematics and code.

    A heading is no sentence and is left out; so is what follows the heading References.
    """
    if found := REFERENCES.search(source):
        source = source[: found.start()]
    for pattern, instead in ((_COMMENT, ""), (_CODE, "X"), (_MATHS, "X"), (_TAG, "")):
        source = pattern.sub(instead, source)
    source = _LINK.sub(r"\1", source)
    source = re.sub(r"\bX(?:[ ,]+X)+\b", "X", source)  # three symbols in a row are no slip
    paragraphs: list[list[str]] = [[]]
    for line in source.splitlines():
        text = line.strip().lstrip(">").strip()
        if not text or text.startswith(("#", "|")):
            paragraphs.append([])
        elif _BULLET.match(text):
            paragraphs.append([_BULLET.sub("", text)])
        else:
            paragraphs[-1].append(text)
    return [re.sub(r"[*_]{1,3}(?=\S)|(?<=\S)[*_]{1,3}", "", " ".join(p)) for p in paragraphs if p]


def private_words(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """Words of this book's own where the field, or plain English, has a better one."""
    for where, paragraph in _paragraphs(notebook):
        for word in VOCABULARY:
            for found in re.finditer(word.pattern, paragraph, re.IGNORECASE):
                yield f"{where}: {found.group(0).strip()[:60]!r}; say: {word.say}"


def sentences_that_are_too_long(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """A sentence above `LONGEST_SENTENCE` words holds two thoughts."""
    for where, paragraph in _paragraphs(notebook):
        for sentence in re.split(r"(?<=[.?!:])\s+(?=[A-Z(\"“])", paragraph):
            words = len(re.findall(r"[^\W\d_]{2,}", sentence))
            if words > LONGEST_SENTENCE:
                yield f"{where}: a sentence of {words} words: {sentence[:60]!r}…"


def finds_of_proselint(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """What proselint says about the prose.

    Raises:
        MissingDependencyError: proselint is not installed.
    """
    lint = _proselint()
    for where, paragraph in _paragraphs(notebook):
        for message in lint(paragraph):
            yield f"{where}: {message}"


def _paragraphs(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            for paragraph in prose_of(cell.source):
                yield at(index, cell), paragraph


# Typography is Markdown's business (dashes, quotes, the sign ×); "very" and hedges carry meaning
# where a statistic is described; the words that psychologists advise against are the field's here;
# a range of years is no range from 0 to 1, and a paragraph may begin with "But".
_LEFT_OUT = ("typography", "hedging", "psychology", "weasel_words", "restricted", "annotations")
_LEFT_OUT_CHECKS = ("misc.but", "dates_times")


@cache
def _proselint():
    try:
        from proselint.checks import __register__
        from proselint.config import DEFAULT
        from proselint.registry import CheckRegistry
        from proselint.tools import LintFile
    except ImportError as error:
        raise MissingDependencyError(
            'proselint, which reads the prose, is missing. Run: pip install "irlbook[test]"'
        ) from error
    registry = CheckRegistry()
    if not registry.checks:
        registry.register_many(__register__)
    config = {**DEFAULT, "checks": {k: k not in _LEFT_OUT for k in DEFAULT["checks"]}}

    def lint(text: str) -> list[str]:
        results = LintFile("paragraph", text).lint(config)
        return [
            f"{result.check_result.message} ({result.check_result.check_path})"
            for result in results
            if not result.check_result.check_path.startswith(_LEFT_OUT_CHECKS)
        ]

    return lint
