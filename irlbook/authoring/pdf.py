"""The whole book as one PDF: the pages of the built website, joined and printed by a browser.

    sphinx-build -W -c docs . build/site
    python -m irlbook.authoring.pdf build/site --out irlbook.pdf

Needs the extra `browser` and a Chromium, and no network: the site carries its own MathJax, and what
is not in the site is refused. The first page, the chapters and a few pages beside them
(:data:`BESIDE`) are printed in the order of the site's table of contents. Code that the site folds
is left out. Links between printed pages lead inside the PDF; links to pages that are not printed
(the reference, exercises and solutions) become plain text.

Chapters 0 to 15 make about 400 pages, in two minutes on two cores, and need 3.5 GB of memory.

Sphinx's builder `singlehtml` joins pages, too, but not well enough for this book (Sphinx 9.0):
links to an equation get two `#` and lead nowhere, ids that several chapters have (`summary`) stay
as they are, and it reads all sources a second time.
"""

import argparse
import io
import json
import posixpath
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag, urlsplit

from irlbook.authoring.notebooks import write_atomically
from irlbook.errors import MissingDependencyError, SiteError, as_command

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag
    from playwright.sync_api import Browser, Route
    from playwright.sync_api import Page as Tab
    from pypdf import PdfReader
    from pypdf.generic import IndirectObject

__all__ = [
    "BESIDE",
    "BROWSERS",
    "Book",
    "FLAGS",
    "Heading",
    "PrintedPage",
    "find_browser",
    "join",
    "main",
    "opened",
    "page_numbers",
    "pages_to_print",
    "print_book",
    "with_outline",
]

BESIDE = ("docs/notation", "docs/glossary", "docs/references", "docs/map")
"""What is printed of the pages beside the chapters."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
"""Programs that playwright can drive, in the order in which they are looked for."""

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
"""What a browser is started with: it asks nobody for anything."""

_STYLE = Path(__file__).with_suffix(".css")
_BOOK = "http://irlbook.invalid/"  # asked of nobody: the site's folder answers
_SCALE = 0.8  # the site's letters are made for a screen
_WIDTH = round((210 - 2 * 18) / 25.4 * 96 / _SCALE)  # of the text, in CSS pixels; see pdf.css
_PRINTS = 5  # the contents get their page numbers from the print before
_NAMING = {"id", "for", "aria-labelledby", "aria-describedby"}
_NOTE = "Code that draws, checks or tabulates is left out here: the notebooks hold all of it."
_SHORT = 15  # lines of code that stay on one page

# Formulas are typeset page by page, so that progress can be shown; without the hidden copy of each
# formula in MathML, which would stand in the PDF's text once more.
_MATHJAX = """
const site = window.MathJax || {};
window.MathJax = {...site, startup: {typeset: false},
  options: {...site.options, enableMenu: false, renderActions: {assistiveMml: []}}};
"""
_TYPESET = "(article) => window.MathJax && MathJax.typesetPromise([article])"
_FAULTS = """() => [
  ...[...document.querySelectorAll("mjx-merror, [data-mjx-error]")].map((error) =>
    "formula: " + (error.getAttribute("data-mjx-error") || error.textContent)),
  ...[...document.images].filter((image) => !image.naturalWidth)
    .map((image) => "picture: " + image.src)]"""
_FIT = """() => {
  let fitted = 0;
  for (const box of document.querySelectorAll(
      "pre, div.math, .irlbook-table, .pst-scrollable-table-container, .output > table")) {
    const room = box.parentElement.clientWidth;
    const need = Math.max(box.scrollWidth, box.offsetWidth);
    if (need > room + 1) {
      box.style.zoom = Math.floor(98 * room / need) / 100;
      fitted += 1;
    }
  }
  return fitted;
}"""
_TOO_WIDE = """() => [
    ...document.querySelectorAll("article :is(pre, table, img, p, mjx-container)")]
  .filter((box) => box.getBoundingClientRect().left + Math.max(box.scrollWidth, box.offsetWidth)
    * box.currentCSSZoom > document.body.clientWidth + 2)
  .map((box) => `wider than the paper: ${box.tagName.toLowerCase()} of ${
    box.closest("article").id}, ${box.textContent.trim().slice(0, 60)}`)"""
# Chromium may break pages in another place when it prints the same layout again.
_ANEW = """() => {
  document.body.style.display = "none";
  document.body.offsetHeight;
  document.body.style.display = "";
}"""
_NUMBER = """(numbers) => document.querySelectorAll("[data-place]").forEach(
  (entry) => { entry.textContent = numbers[entry.dataset.place]; })"""


@dataclass(frozen=True)
class Heading:
    """An entry of the contents and of the outline.

    Attributes:
        depth: from 1; a chapter lies below its part, a section below its chapter.
        words: its text.
        place: the id that a link to it names.
    """

    depth: int
    words: str
    place: str


@dataclass(frozen=True)
class Book:
    """All printed pages as one page of HTML, with addresses relative to the folder of the site."""

    html: str
    headings: list[Heading]


@dataclass(frozen=True)
class PrintedPage:
    """A page of the site that is printed.

    Attributes:
        name: its address without `.html`, as in `chapters/03_price_of_information`.
        part: the part of the book that it opens or belongs to; empty for the first page.
    """

    name: str
    part: str = ""

    @property
    def key(self) -> str:
        """What the ids of the page begin with, which is also the name of its paper in CSS."""
        return self.name.replace("/", "-")


# Joining ------------------------------------------------------------------------------------------


def _soup(site: Path, name: str) -> "BeautifulSoup":
    from bs4 import BeautifulSoup

    file = site / f"{name}.html"
    if not file.is_file():
        raise SiteError(
            f"{site} has no page {name}.html. Build the site: sphinx-build -W -c docs . {site}"
        )
    return BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")


def pages_to_print(site: Path) -> list[PrintedPage]:
    """The first page, the chapters and :data:`BESIDE`, in the order of the table of contents.

    Raises:
        SiteError: there is no site in this folder, or its first page lists no chapter.
    """
    pages, part = [PrintedPage("index")], ""
    for entry in _soup(site, "index").select(
        "nav.bd-links p.caption, nav.bd-links li.toctree-l1 > a"
    ):
        if entry.name == "p":
            part = entry.get_text(strip=True)
            continue
        name = str(entry["href"]).removesuffix(".html")
        if name.startswith("chapters/") or name in BESIDE:
            pages.append(PrintedPage(name, part))
    if len(pages) == 1:
        raise SiteError(f"{site}/index.html lists no chapter in its table of contents")
    return pages


def _clean(article: "Tag") -> None:
    """Take out what has no use on paper: folded code, anchors to click on, empty cells."""
    for part in article.select("a.headerlink, details.hide, .toctree-wrapper"):
        part.decompose()
    for cell in article.find_all("div", class_="cell"):
        if not cell.get_text(strip=True) and cell.find("img") is None:
            cell.decompose()
    for code in article.find_all("pre"):
        if code.get_text().rstrip().count("\n") < _SHORT:
            code["class"] = "short"


def _lower_headings(article: "Tag") -> None:
    """h1 becomes h2 and so on: the h1 of a chapter is its part."""
    for level in (5, 4, 3, 2, 1):
        for heading in article.find_all(f"h{level}"):
            heading.name = f"h{level + 1}"


def _lead_inside(page: PrintedPage, article: "Tag", ids: dict[str, set[str]]) -> None:
    """Give ids and links of a page their names in the joined page.

    Raises:
        SiteError: a link leads to a place that a printed page does not have.
    """
    folder = posixpath.dirname(page.name)
    for link in article.find_all("a", href=True):
        address = str(link["href"])
        if urlsplit(address).scheme:
            continue
        path, place = urldefrag(address)
        name = posixpath.normpath(posixpath.join(folder, unquote(path))) if path else page.name
        name, place = name.removesuffix(".html"), unquote(place)
        if name not in ids:
            link.unwrap()
        elif place and place not in ids[name]:
            raise SiteError(f"{page.name} links to {address}, and there is no such place")
        else:
            link["href"] = f"#{_place(PrintedPage(name), place)}"
    for picture in article.find_all("img", src=True):
        if not urlsplit(str(picture["src"])).scheme:
            picture["src"] = posixpath.normpath(posixpath.join(folder, str(picture["src"])))
        picture.attrs.pop("loading", None)
    for named in article.find_all(True):
        for attribute in _NAMING & set(named.attrs):
            names = " ".join(named.get_attribute_list(attribute)).split()
            named[attribute] = " ".join(_place(page, name) for name in names)


def _place(page: PrintedPage, place: str) -> str:
    return f"{page.key}--{place}" if place else page.key


def _headings(articles: "dict[PrintedPage, Tag]") -> "Iterator[Heading]":
    part = ""
    for page, article in articles.items():
        if page.part != part:
            part = page.part
            yield Heading(1, part, page.key)
        depth = 2 if part else 1
        for heading in article.select("section > h1, section > h2"):
            words = heading.get_text().strip()
            if heading.name == "h1":
                yield Heading(depth, words, page.key)
            elif heading.parent:
                yield Heading(depth + 1, words, str(heading.parent["id"]))


def _contents(headings: list[Heading]) -> str:
    """Links to parts, pages and sections; their pages are known after the first print."""
    lines = [
        f'<p class="depth-{h.depth}"><a href="#{h.place}">{escape(h.words)}</a>'
        f'<span data-place="{h.place}">000</span></p>'
        for h in headings
    ]
    return f'<nav class="book-contents"><h1>Contents</h1>{"".join(lines)}</nav>'


def join(site: Path) -> Book:
    """The site's printed pages as one page: title, contents, and one article for each.

    Raises:
        SiteError: a page is missing, or a link leads nowhere.
    """
    soups = {page: _soup(site, page.name) for page in pages_to_print(site)}
    articles = {}
    for page, soup in soups.items():
        article = soup.select_one("article.bd-article")
        if article is None or article.h1 is None:
            raise SiteError(f"{page.name}.html of {site} is no page of sphinx-book-theme")
        _clean(article)
        articles[page] = article
    ids = {page.name: {str(e["id"]) for e in a.find_all(id=True)} for page, a in articles.items()}
    for page, article in articles.items():
        _lead_inside(page, article, ids)
    headings = list(_headings(articles))
    front = soups[PrintedPage("index")]
    line = front.select_one("article p > strong")
    title = [headings[0].words, line.get_text() if line else ""]
    papers, part = [], ""
    for page, article in articles.items():
        running = json.dumps(article.h1.get_text() if article.h1 else "", ensure_ascii=False)
        papers.append(f"@page {page.key} {{ @top-right {{ content: {running} }} }}")
        article["id"], article["style"] = page.key, f"page: {page.key}"
        if page.part:
            _lower_headings(article)
        if page.part != part:
            part = page.part
            article.insert(0, front.new_tag("h1", attrs={"class": "part"}, string=part))
    html = [
        '<!doctype html><html lang="en" data-theme="light" data-mode="light"><head>',
        f'<meta charset="utf-8"><title>{escape(": ".join(filter(None, title)))}</title>',
        *_loaded(soups),
        f"<style>{_STYLE.read_text(encoding='utf-8')}{''.join(papers)}</style></head><body>",
        f'<div class="title-page"><p>{escape(title[0])}</p><p>{escape(title[1])}</p>',
        f"<p>{_NOTE}</p></div>",
        _contents(headings),
        *map(str, articles.values()),
        "</body></html>",
    ]
    return Book("\n".join(html), headings)


def _loaded(soups: "dict[PrintedPage, BeautifulSoup]") -> list[str]:
    """The stylesheets of all pages, and MathJax with its settings, each once."""
    found: dict[str, None] = {}
    for page, soup in soups.items():
        folder = posixpath.dirname(page.name)
        for tag in soup.select("head link[rel=stylesheet], head script"):
            address = tag.get("href") or tag.get("src")
            if tag.name == "script" and "mathjax" not in str(tag).lower():
                continue
            if address:
                tag["href" if tag.name == "link" else "src"] = posixpath.normpath(
                    posixpath.join(folder, str(address))
                )
                found[str(tag)] = None
            else:
                found[f"{tag}<script>{_MATHJAX}</script>"] = None
    return list(found)


# Printing -----------------------------------------------------------------------------------------


def find_browser() -> str | None:
    """The path of an installed browser, of :data:`BROWSERS`."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


@contextmanager
def opened() -> "Iterator[Browser]":
    """A headless browser: one that is installed, or else playwright's own.

    Raises:
        MissingDependencyError: playwright or the browser is missing; the message says what to do.
    """
    _need("playwright")
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=list(FLAGS))
        except Error as error:
            raise MissingDependencyError(
                "no Chromium could be started. On Debian: apt-get install chromium; elsewhere: "
                f"playwright install chromium ({str(error).splitlines()[0]})"
            ) from None
        yield browser
        browser.close()


def _need(*packages: str) -> None:
    if missing := [package for package in packages if find_spec(package) is None]:
        raise MissingDependencyError(
            f"printing the book needs {' and '.join(missing)}, which is not installed here. "
            'Run: pip install -c constraints.txt -e ".[docs,browser]"'
        )


def page_numbers(reader: "PdfReader") -> dict[str, int]:
    """The page, from 1, of each place of a PDF that its links lead to."""
    return {
        name.removeprefix("/"): (reader.get_destination_page_number(place) or 0) + 1
        for name, place in reader.named_destinations.items()
    }


def _printed(tab: "Tab") -> bytes:
    return tab.pdf(scale=_SCALE, prefer_css_page_size=True, print_background=True, tagged=True)


def with_outline(pdf: bytes, headings: list[Heading]) -> bytes:
    """A PDF with these headings as its outline: Chromium's own says some of them twice."""
    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import Fit

    reader = PdfReader(io.BytesIO(pdf))
    writer = PdfWriter(io.BytesIO(pdf), incremental=True)
    places = reader.named_destinations
    above: list[IndirectObject] = []
    for heading in headings:
        del above[heading.depth - 1 :]
        place = places[f"/{heading.place}"]
        above.append(
            writer.add_outline_item(
                title=heading.words,
                page_number=reader.get_destination_page_number(place),
                parent=above[-1] if above else None,
                fit=Fit.xyz(top=place.top),
                is_open=False,
            )
        )
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


def _no_faults(site: Path, faults: list[str]) -> None:
    if faults:
        raise SiteError(f"{len(faults)} faults of {site}: " + "; ".join(faults[:10]))


def print_book(site: Path, out: Path, say: Callable[[str], None] = print) -> int:
    """Join the pages of a built site, print them into `out` in one step, and count its pages.

    Args:
        say: told what is being done.

    Raises:
        SiteError: there is no site, a link leads nowhere, a picture or file is missing, a formula
            cannot be typeset, or something outside of the site is asked for.
        MissingDependencyError: the extra `browser` or a Chromium is missing.
    """
    _need("bs4", "playwright", "pypdf")
    from pypdf import PdfReader
    from tqdm import tqdm

    site = site.resolve()
    book = join(site)
    missing: list[str] = []

    def answer(route: "Route") -> None:
        address = route.request.url
        file = site / unquote(urlsplit(address).path.lstrip("/"))
        if address == _BOOK:
            route.fulfill(body=book.html, content_type="text/html")
        elif address.startswith(_BOOK) and file.is_file():
            route.fulfill(path=file)
        else:
            missing.append(address)
            route.abort()

    with opened() as browser:
        tab = browser.new_page(viewport={"width": _WIDTH, "height": 1000}, color_scheme="light")
        tab.set_default_timeout(0)
        tab.route("**/*", answer)
        tab.emulate_media(media="print")
        tab.goto(_BOOK)
        for part in tqdm(tab.query_selector_all("body > *"), desc="formulas", unit="page"):
            part.evaluate(_TYPESET)
        tab.evaluate("document.fonts.ready")
        _no_faults(site, [f"not in the site: {address}" for address in missing])
        _no_faults(site, tab.evaluate(_FAULTS))
        say(f"{tab.evaluate(_FIT)} tables, formulas and programs made smaller to fit")
        _no_faults(site, tab.evaluate(_TOO_WIDE))
        numbers: dict[str, int] = {}
        for attempt in range(_PRINTS):
            say(f"print {attempt + 1}: {'for the page numbers' if not numbers else 'with them'}")
            tab.evaluate(_ANEW)
            pdf = _printed(tab)
            reader = PdfReader(io.BytesIO(pdf))
            if (found := page_numbers(reader)) == numbers:
                break
            tab.evaluate(_NUMBER, numbers := found)
        else:
            raise SiteError(f"the page numbers still change after {_PRINTS} prints of {site}")
    write_atomically(out, with_outline(pdf, book.headings))
    return len(reader.pages)


def main(arguments: list[str] | None = None) -> int:
    """`python -m irlbook.authoring.pdf SITE --out FILE`."""
    parser = argparse.ArgumentParser(
        prog="python -m irlbook.authoring.pdf", description="Print the built website as one PDF."
    )
    parser.add_argument("site", type=Path, help="what sphinx-build wrote, as in build/site")
    parser.add_argument("--out", type=Path, default=Path("irlbook.pdf"), help="the file to write")
    given = parser.parse_args(arguments)
    pages = print_book(given.site, given.out)
    print(f"{given.out}: {pages} pages, {given.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(as_command(main))
