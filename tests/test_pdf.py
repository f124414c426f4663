"""The book as a PDF: how pages are joined, and what the browser prints of them."""

import base64
import io
import os
import re
import unicodedata
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from site_builder import built_site

from irlbook.authoring import pdf
from irlbook.errors import MissingDependencyError, SiteError, as_command

pytest.importorskip("bs4", reason="the extra docs is not installed")

from bs4 import BeautifulSoup  # noqa: E402 - without it there is nothing to test

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
MARGIN = """<nav class="bd-links"><div>
<p class="caption"><span>Start</span></p>
<ul><li class="toctree-l1"><a href="chapters/00_tour.html">0 · The tour</a></li></ul>
<p class="caption"><span>Part I</span></p>
<ul><li class="toctree-l1"><a href="chapters/01_plans.html">1 · Plans</a></li></ul>
<p class="caption"><span>Beside the chapters</span></p>
<ul><li class="toctree-l1"><a href="docs/exercises.html">Exercises</a></li>
<li class="toctree-l1"><a href="docs/glossary.html">Glossary</a></li></ul></div></nav>"""
FRONT = """<section id="irlbook"><h1>irlbook<a class="headerlink" href="#irlbook">#</a></h1>
<p><strong>A small book.</strong></p><p>Read <a href="chapters/00_tour.html">the tour</a>.</p>
</section>"""
TOUR = """<section id="the-tour"><h1>0 · The tour</h1>
<p>It needs <a href="../docs/glossary.html#term-nat">nats</a>, <a href="01_plans.html#summary">a
plan</a>, <a href="../docs/reference/mdp.html">code</a>, <a href="https://arxiv.org">papers</a>.</p>
<div class="cell"><details class="hide"><summary>Show code</summary><pre>folded()</pre></details>
<div class="cell_output"><figure id="figure-0-1"><img src="../_images/a.png" alt="a dot">
<figcaption>Figure 0.1. A dot.</figcaption></figure></div></div>
<div class="cell"><details class="hide"><summary>Show code</summary><pre>silent()</pre></details>
</div>
<section id="summary"><h2>Summary</h2><p>See <a href="#figure-0-1">the dot</a>.</p></section>
</section>"""
PLANS = f"""<section id="plans"><h1>1 · Plans</h1><pre>wide = "{"long " * 60}END"</pre>
<section id="summary"><h2>Summary</h2><p>Plan first.</p></section></section>"""
GLOSSARY = """<section id="glossary"><h1>Glossary</h1>
<table><tr id="term-nat"><td>nat</td><td>a unit of information</td></tr></table></section>"""


def write_page(site: Path, name: str, article: str) -> None:
    path = site / f"{name}.html"
    path.parent.mkdir(exist_ok=True, parents=True)
    up = "../" * name.count("/")
    path.write_text(
        f'<!doctype html><html><head><link rel="stylesheet" href="{up}_static/site.css?v=1">'
        f'</head><body>{MARGIN}<article class="bd-article">{article}</article></body></html>',
        encoding="utf-8",
    )


@pytest.fixture
def site(tmp_path) -> Path:
    """A site of four printed pages and one that is not, made as the theme makes them."""
    folder = tmp_path / "site"
    pages = {"index": FRONT, "chapters/00_tour": TOUR, "chapters/01_plans": PLANS}
    for name, article in {
        **pages,
        "docs/glossary": GLOSSARY,
        "docs/exercises": "<h1>x</h1>",
    }.items():
        write_page(folder, name, article)
    (folder / "_images").mkdir()
    (folder / "_images" / "a.png").write_bytes(PICTURE)
    (folder / "_static").mkdir()
    (folder / "_static" / "site.css").write_text("p {color: black}")
    return folder


@pytest.fixture
def joined(site) -> BeautifulSoup:
    return BeautifulSoup(pdf.join(site).html, "html.parser")


def test_pages_come_in_the_order_of_the_contents_with_their_parts(site):
    assert [(page.name, page.part) for page in pdf.pages_to_print(site)] == [
        ("index", ""),
        ("chapters/00_tour", "Start"),
        ("chapters/01_plans", "Part I"),
        ("docs/glossary", "Beside the chapters"),
    ]


def test_every_link_within_the_book_leads_to_one_place_of_it(joined):
    ids = Counter(str(e["id"]) for e in joined.select("[id]"))
    assert max(ids.values()) == 1, "ids that several pages have must be told apart"
    inside = [str(a["href"]) for a in joined.select("a[href]") if a["href"] != "https://arxiv.org"]
    assert len(inside) > 8 and all(link[0] == "#" and link[1:] in ids for link in inside)
    of_tour = [a["href"] for a in joined.select("#chapters-00_tour p a")]
    assert of_tour == [
        "#docs-glossary--term-nat",
        "#chapters-01_plans--summary",
        "https://arxiv.org",
        "#chapters-00_tour--figure-0-1",
    ]


def test_a_link_to_a_page_that_is_not_printed_becomes_plain_text(joined):
    tour = joined.select_one("#chapters-00_tour p")
    assert "code" in tour.get_text() and "code" not in [a.get_text() for a in tour.select("a")]


def test_folded_code_and_what_is_to_be_clicked_is_left_out(joined):
    text = joined.get_text()
    assert "folded" not in text and "silent" not in text and "Show code" not in text
    assert not joined.select(".headerlink") and "irlbook#" not in text
    assert len(joined.select(".cell")) == 1, (
        "a cell with nothing left goes, one with a picture stays"
    )
    assert joined.select_one("img")["src"] == "_images/a.png"
    assert joined.select_one("link")["href"] == "_static/site.css?v=1"


def test_a_chapter_lies_below_its_part(joined):
    found = [(h.name, h.get_text()) for h in joined.select("article :is(h1, h2, h3)")]
    assert found == [
        ("h1", "irlbook"),
        ("h1", "Start"),
        ("h2", "0 · The tour"),
        ("h3", "Summary"),
        ("h1", "Part I"),
        ("h2", "1 · Plans"),
        ("h3", "Summary"),
        ("h1", "Beside the chapters"),
        ("h2", "Glossary"),
    ]


def test_a_link_that_leads_nowhere_is_named(site):
    write_page(site, "chapters/01_plans", PLANS.replace("Plan first", '<a href="#gone">x</a>'))
    with pytest.raises(SiteError, match=r"chapters/01_plans links to #gone"):
        pdf.join(site)


def test_without_a_site_one_line_says_how_to_build_it(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "not-there"):
        command = [str(folder), "--out", str(tmp_path / "book.pdf")]
        assert as_command(lambda own=command: pdf.main(own)) == 1
        said = capsys.readouterr().err
        assert "sphinx-build -W -c docs ." in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_page_without_an_article_or_chapters_is_refused(site):
    (site / "docs" / "glossary.html").write_text("<p>another theme</p>")
    with pytest.raises(SiteError, match="docs/glossary.html"):
        pdf.join(site)
    (site / "index.html").write_text("<p>another site</p>")
    with pytest.raises(SiteError, match="no chapter"):
        pdf.join(site)


def test_a_missing_package_is_named_with_its_extra(site, monkeypatch, tmp_path):
    monkeypatch.setattr(pdf, "find_spec", lambda name: None if name == "pypdf" else True)
    with pytest.raises(MissingDependencyError, match=r"pypdf.*pip install .*browser"):
        pdf.print_book(site, tmp_path / "book.pdf")


@pytest.fixture(scope="module")
def real_site(tmp_path_factory) -> Path:
    return built_site(tmp_path_factory.mktemp("site"))


def test_all_chapters_of_the_real_site_join_without_a_dead_link(real_site):
    book = pdf.join(real_site)
    places = [heading.place for heading in book.headings]
    assert len(set(places)) > 200
    pages = {page.key for page in pdf.pages_to_print(real_site)}
    assert len([key for key in pages if key.startswith("chapters-")]) >= 16
    assert {name.replace("/", "-") for name in pdf.BESIDE} < pages < set(places)


# What the browser prints ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def printer():
    """`print_book`, where there is a browser."""
    if missing := [name for name in ("playwright", "pypdf") if find_spec(name) is None]:
        pytest.skip(f"the extra browser is not installed ({', '.join(missing)})")
    if pdf.find_browser() is None:
        pytest.skip("no Chromium is installed here (on Debian: apt-get install chromium)")
    return pdf.print_book


def outline_of(reader, items=None, depth: int = 1):
    """(depth, title, page) of all items, in order."""
    for item in reader.outline if items is None else items:
        if isinstance(item, list):
            yield from outline_of(reader, item, depth + 1)
        else:
            yield depth, item.title, reader.get_destination_page_number(item) + 1


def read(path: Path):
    from pypdf import PdfReader

    return PdfReader(io.BytesIO(path.read_bytes()))


def test_the_book_is_printed_with_an_outline_and_links_that_stay_inside(printer, site, tmp_path):
    out, said = tmp_path / "out" / "book.pdf", []
    assert printer(site, out, said.append) == 6
    reader = read(out)
    assert list(outline_of(reader)) == [
        (1, "irlbook", 3),
        (1, "Start", 4),
        (2, "0 · The tour", 4),
        (3, "Summary", 4),
        (1, "Part I", 5),
        (2, "1 · Plans", 5),
        (3, "Summary", 5),
        (1, "Beside the chapters", 6),
        (2, "Glossary", 6),
    ]
    text = [page.extract_text() for page in reader.pages]
    assert reader.metadata.title == "irlbook: A small book."
    assert "A small book." in text[0] and not re.search(r"\d", text[0]), "the title has no number"
    rows = [row for row in text[1].splitlines() if row.strip()]
    assert any(re.fullmatch(r"1 · Plans\s*5", row) for row in rows), rows
    assert "Figure 0.1" in text[3] and "4" in text[3].split() and "folded" not in text[3]
    links = [a.get_object() for page in reader.pages for a in page.get("/Annots", [])]
    inside = [str(link["/Dest"]) for link in links if "/Dest" in link]
    assert set(inside) <= set(reader.named_destinations) and len(inside) > 8
    assert {str(link["/A"]["/URI"]) for link in links if "/A" in link} == {"https://arxiv.org/"}
    assert said == [
        "1 tables, formulas and programs made smaller to fit",
        "print 1: for the page numbers",
        "print 2: with them",
    ]
    assert "END" in text[4], "a long line is not cut off"
    assert [path.name for path in out.parent.iterdir()] == ["book.pdf"]


def test_what_is_missing_is_named_and_the_old_file_stays(printer, site, tmp_path):
    out = tmp_path / "book.pdf"
    out.write_bytes(b"the last one")
    (site / "_images" / "a.png").unlink()
    with pytest.raises(SiteError, match=r"not in the site: .*_images/a.png"):
        printer(site, out)
    write_page(site, "chapters/00_tour", '<h1>0</h1><img src="https://example.org/a.png">')
    with pytest.raises(SiteError, match="not in the site: https://example.org/a.png"):
        printer(site, out)
    assert out.read_bytes() == b"the last one"


def test_what_cannot_be_made_smaller_is_named(printer, site, tmp_path):
    wide = '<section><h1>0</h1><p style="width: 3000px">too wide</p></section>'
    write_page(site, "chapters/00_tour", wide)
    with pytest.raises(SiteError, match="wider than the paper: p of chapters-00_tour, too wide"):
        printer(site, tmp_path / "book.pdf")


def test_a_browser_that_does_not_start_is_named(printer, site, monkeypatch, tmp_path):
    monkeypatch.setattr(pdf, "find_browser", lambda: os.fspath(tmp_path / "no-browser"))
    with pytest.raises(MissingDependencyError, match="apt-get install chromium"):
        printer(site, tmp_path / "book.pdf")


def test_a_real_chapter_is_printed_with_its_formulas_and_pictures(printer, real_site, tmp_path):
    part = tmp_path / "part"
    part.mkdir()
    for folder in ("_images", "_static", "chapters", "docs"):
        (part / folder).symlink_to(real_site / folder)
    index = BeautifulSoup((real_site / "index.html").read_text(encoding="utf-8"), "html.parser")
    for entry in index.select("nav.bd-links li.toctree-l1"):
        if not entry.a["href"].startswith(("chapters/00", "docs/notation")):
            entry.decompose()
    (part / "index.html").write_text(str(index), encoding="utf-8")
    pages = printer(part, tmp_path / "part.pdf", lambda _: None)
    reader = read(tmp_path / "part.pdf")
    assert 10 < pages < 40 and len(reader.pages) == pages
    text = "\n".join(page.extract_text() for page in reader.pages)
    assert "\\(" not in text and "\\pi" not in text, "formulas are typeset, not shown as LaTeX"
    assert len(re.findall(r"Figure 0\.\d\.", text)) == 4 and "Show code" not in text
    for _, title, number in outline_of(reader):
        shown = unicodedata.normalize("NFKC", reader.pages[number - 1].extract_text())  # ligatures
        shown = re.sub(r"\s", "", shown)
        assert re.sub(r"\s", "", title) in shown, f"{title} does not stand on page {number}"
