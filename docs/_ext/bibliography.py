"""The references of all chapters: one file (docs/references.bib), one page, links in every list.

A chapter lists its references in words. Each item is found in the file by the surname of the first
author, the title (or what stands of it before a colon) and the year, and its title becomes a link.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from irlbook.authoring.notebooks import REFERENCES, read

if TYPE_CHECKING:
    from pybtex.database import Person

DOCS = Path(__file__).parents[1]
FILE = DOCS / "references.bib"

_ARXIV = re.compile(r"arXiv[: ](\d{4}\.\d{4,5})")
_YEAR = re.compile(r"(?<![\d.])(?:1[89]|20)\d\d(?![\d.]\d)")


@dataclass(frozen=True)
class Reference:
    """One entry of the file; a field that it lacks is an empty string."""

    key: str
    surname: str
    authors: str
    title: str
    short_title: str
    year: str
    where: str
    doi: str
    arxiv: str
    url: str

    @property
    def address(self) -> str:
        """Where the work can be read: its DOI, else arXiv, else a page; empty if none is known."""
        if self.doi:
            return f"https://doi.org/{self.doi}"
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else self.url

    @property
    def anchor(self) -> str:
        return f"ref-{self.key}"

    @property
    def title_pattern(self) -> re.Pattern[str]:
        """The title, or its part before a colon or question mark, as an item may set it."""
        whole = [self.title, re.split(r"[:?](?=\s|$)", self.title)[0], self.short_title]
        words = [re.findall(r"\w+", title) for title in whole if title]
        forms = [r"[\W_]+".join(map(re.escape, form)) for form in words]
        return re.compile(rf"\b(?:{'|'.join(forms)})(?!\w)", re.IGNORECASE)

    def is_meant_by(self, item: str) -> bool:
        """Whether an item of a chapter's list names this work."""
        if not re.search(rf"(?<!\w){re.escape(self.surname)}(?!\w)", item):
            return False
        years = set(_YEAR.findall(_ARXIV.sub("", item)))
        return bool(self.title_pattern.search(item)) and (not years or self.year in years)


@cache
def references(file: Path = FILE) -> tuple[Reference, ...]:
    """The entries of the file, in its order."""
    from pybtex.database import parse_file
    from pybtex.richtext import Text

    read = []
    for key, entry in parse_file(str(file), bib_format="bibtex").entries.items():
        people = entry.persons["author"]
        field = {name: str(Text.from_latex(value)) for name, value in entry.fields.items()}
        surname = (*people[0].rich_prelast_names, *people[0].rich_last_names)
        where = ("journal", "booktitle", "publisher", "school", "institution", "howpublished")
        read.append(
            Reference(
                key=key,
                surname=" ".join(map(str, surname)),
                authors=_names([_full(person) for person in people]),
                title=field["title"],
                short_title=field.get("shorttitle", ""),
                year=field["year"],
                where=next((field[name] for name in where if name in field), ""),
                doi=entry.fields.get("doi", ""),
                arxiv=entry.fields.get("eprint", ""),
                url=entry.fields.get("url", ""),
            )
        )
    return tuple(read)


def _full(person: "Person") -> str:
    given = (*person.rich_first_names, *person.rich_middle_names)
    return " ".join(map(str, (*given, *person.rich_prelast_names, *person.rich_last_names)))


def _names(names: list[str]) -> str:
    if names[-1] == "others":
        return ", ".join(names[:-1]) + " et al"
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def items_of(text: str) -> Iterator[str]:
    """The items of the list below each heading with the word References, each as one line."""
    for heading in REFERENCES.finditer(text):
        below = re.split(r"^#+ ", text[heading.end() :], maxsplit=1, flags=re.MULTILINE)[0]
        for item in re.split(r"^[*-] ", below, flags=re.MULTILINE)[1:]:
            yield " ".join(item.split())


def meant_by(item: str) -> list[Reference]:
    """The works that an item names; one item may name several."""
    return [reference for reference in references() if reference.is_meant_by(item)]


def cited() -> dict[str, list[int]]:
    """By key of the file: the chapters whose lists name the work."""
    where: dict[str, list[int]] = {}
    for path in sorted((DOCS.parent / "chapters").glob("*.ipynb")):
        text = "\n\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
        for key in {r.key for item in items_of(text) for r in meant_by(item)}:
            where.setdefault(key, []).append(int(path.stem[:2]))
    return where


# In Sphinx ----------------------------------------------------------------------------------------


def link(text: str, address: str) -> nodes.reference:
    return nodes.reference("", text, refuri=address, internal=False)


class Bibliography(SphinxDirective):
    """`{bibliography}`: every entry of the file, with the chapters that cite it."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(FILE))
        cited_by = cited()
        listing = nodes.bullet_list(classes=["references"])
        in_order = sorted(references(), key=lambda r: (r.surname.lower(), r.year, r.title))
        for reference in in_order:
            paragraph = nodes.paragraph("", f"{reference.authors} ({reference.year}). ")
            title = nodes.emphasis("", reference.title)
            if reference.address:
                title = nodes.emphasis("", "", link(reference.title, reference.address))
            end = "" if reference.title.endswith("?") else "."
            where = f" {reference.where}." if reference.where else ""
            paragraph += [title, nodes.Text(end + where)]
            if reference.arxiv:
                address = f"https://arxiv.org/abs/{reference.arxiv}"
                paragraph += [nodes.Text(" "), link(f"arXiv {reference.arxiv}", address)]
                paragraph += nodes.Text(".")
            if chapters := cited_by.get(reference.key):
                paragraph += nodes.Text(" " + _chapters(chapters) + ".")
            listing += nodes.list_item("", paragraph, ids=[reference.anchor])
        return [listing]


def _chapters(numbers: list[int]) -> str:
    *first, last = map(str, numbers)
    return f"Chapters {', '.join(first)} and {last}" if first else f"Chapter {last}"


def link_titles(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """In the lists of references: titles and arXiv numbers as links."""
    for section in doctree.findall(nodes.section):
        if "References" not in section[0].astext() or docname == "docs/references":
            continue
        for item in section.findall(nodes.list_item):
            for reference in meant_by(" ".join(item.astext().split())):
                page = app.builder.get_relative_uri(docname, "docs/references")
                address = reference.address or f"{page}#{reference.anchor}"
                _link_first(item, reference.title_pattern, address)
            for number in _ARXIV.findall(item.astext()):
                pattern = re.compile(rf"arXiv[: ]{re.escape(number)}")
                _link_first(item, pattern, f"https://arxiv.org/abs/{number}")


def _link_first(item: nodes.Node, pattern: re.Pattern[str], address: str) -> None:
    for text in item.findall(nodes.Text):
        if isinstance(text.parent, nodes.reference):
            continue
        if found := pattern.search(str(text)):
            before, after = str(text)[: found.start()], str(text)[found.end() :]
            new = [nodes.Text(before), link(found.group(), address), nodes.Text(after)]
            text.parent.replace(text, [part for part in new if part.astext()])
            return


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("bibliography", Bibliography)
    app.connect("doctree-resolved", link_titles)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
