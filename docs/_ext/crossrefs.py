"""Links that nobody types: "(3.9)" to its equation, "chapter 7", and terms to the glossary.

The notebooks stay plain text that reads well in JupyterLab; the site finds the mentions. Nothing is
linked in code, formulas, headings or links, nor in lists of references, whose "chapter 3" is one of
another book. A term is linked where a page first uses it, from the chapter on that defines it.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from docutils import nodes
from equations import anchor
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

from irlbook.authoring.glossary import Term, read_glossary

ROOT = Path(__file__).parents[2]
GLOSSARY = "docs/glossary"
PAGES = ("chapters/", "exercises/", "solutions/", "docs/notation", "index")

EQUATION = re.compile(r"\((\d{1,2}\.\d{1,2})\)")
CHAPTERS = re.compile(
    r"\b[Cc]hapters?\s+\d{1,2}(?![\d.])(?:(?:\s*[,–-]\s*|,?\s+(?:and|or|to)\s+)\d{1,2}(?![\d.]))*"
)
_NOT_PROSE = (
    nodes.caption,
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.reference,
    nodes.title,
)

Link = Callable[[str, str, str], nodes.Node]
"""(page, id or "", text) -> a link."""


@cache
def chapter_pages() -> dict[int, str]:
    """By number: the page of each chapter."""
    paths = sorted((ROOT / "chapters").glob("[0-9][0-9]_*.ipynb"))
    return {int(path.stem[:2]): f"chapters/{path.stem}" for path in paths}


@cache
def terms() -> tuple[Term, ...]:
    return tuple(read_glossary(ROOT / "docs" / "glossary.md"))


def term_anchor(term: Term) -> str:
    """The id of a row of the glossary: "effective horizon" gives term-effective-horizon."""
    return "term-" + re.sub(r"\W+", "-", term.forms[0].lower()).strip("-")


def pieces(text: str) -> Iterator[tuple[str, int | None]]:
    """A mention of chapters, divided into its numbers and what stands between them.

    >>> list(pieces("Chapters 6 and 7"))
    [('Chapters 6', 6), (' and ', None), ('7', 7)]
    """
    place = 0
    for found in re.finditer(r"^[Cc]hapters?\s+(\d+)|(\d+)", text):
        if found.start() > place:
            yield text[place : found.start()], None
        yield found.group(), int(found.group(1) or found.group(2))
        place = found.end()


def mention(open_terms: list[Term]) -> re.Pattern[str]:
    """What may become a link: an equation, chapters, or one of the terms, the longest first."""
    forms = sorted({f for term in open_terms for f in term.forms}, key=lambda f: (-len(f), f))
    words = [re.escape(f) if f != f.lower() else f"(?i:{re.escape(f)})" for f in forms]
    word = rf"|(?<![\w-])(?P<term>(?:{'|'.join(words)})s?)(?![\w-])" if words else ""
    return re.compile(rf"(?P<equation>{EQUATION.pattern})|(?P<chapters>{CHAPTERS.pattern}){word}")


def link_mentions(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link one page."""
    if not docname.startswith(PAGES):
        return
    equations: dict[str, str] = app.env.irlbook_equations  # type: ignore[attr-defined]
    number = re.match(r"\w+/(\d\d)_", docname)
    here = int(number.group(1)) if number else -1
    open_terms = [term for term in terms() if 0 < term.chapter <= here]

    def link(page: str, target: str, text: str) -> nodes.reference:
        return make_refnode(app.builder, docname, page, target, nodes.inline("", text))

    for text in [t for t in doctree.findall(nodes.Text) if _is_prose(t)]:
        new: list[nodes.Node] = []
        place, whole = 0, str(text)
        pattern = mention(open_terms)
        for found in pattern.finditer(whole):
            said = found.group()
            made: list[nodes.Node] = []
            if found["equation"]:
                if page := equations.get(said[1:-1]):
                    made = [link(page, anchor(said[1:-1]), said)]
            elif found["chapters"]:
                for part, chapter in pieces(said):
                    page = chapter_pages().get(-1 if chapter is None else chapter)
                    known = page is not None and page != docname
                    made.append(link(page, "", part) if known else nodes.Text(part))
            elif term := _term(found["term"], open_terms):
                open_terms.remove(term)
                made = [link(GLOSSARY, term_anchor(term), said)]
                made[0]["classes"].append("term-of-glossary")
                if "$" not in term.meaning:
                    made[0]["reftitle"] = term.meaning
            if made:
                new += [nodes.Text(whole[place : found.start()]), *made]
                place = found.end()
        if new:
            new.append(nodes.Text(whole[place:]))
            text.parent.replace(text, [n for n in new if n.astext()])


def _term(said: str, open_terms: list[Term]) -> Term | None:
    """The term whose form was said; None where it was linked before in the same text."""
    said = said.lower()
    for term in open_terms:
        if said in {s for form in term.forms for s in (form.lower(), form.lower() + "s")}:
            return term
    return None


def _is_prose(text: nodes.Text) -> bool:
    parent = text.parent
    while parent is not None:
        if isinstance(parent, _NOT_PROSE):
            return False
        if isinstance(parent, nodes.section) and "References" in parent[0].astext():
            return False
        parent = parent.parent
    return True


def set_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Give each row of the glossary an id."""
    if app.env.docname != GLOSSARY:
        return
    by_first = {term.forms[0]: term for term in terms()}
    for row in doctree.findall(nodes.row):
        name = row[0].astext().split(",")[0].strip().replace("\u2019", "'")  # as it was typed
        if term := by_first.get(name):
            row["ids"].append(term_anchor(term))


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("doctree-read", set_terms)
    app.connect("doctree-resolved", link_mentions)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
