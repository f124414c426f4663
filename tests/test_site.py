"""The website as it is built: equations, links and what lies beside the pages."""

import html
import re
from pathlib import Path

import pytest
from site_builder import ROOT, built_site, pages_of

from irlbook.authoring.figures import stored_figures
from irlbook.authoring.notebooks import read

MATHS = re.compile(r'<div class="math[^>]*>(.*?)</div>', re.DOTALL)
TAG = re.compile(r"\\tag\{(\d+\.\d+)\}")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    return built_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def pages(site) -> dict[str, str]:
    return {p.relative_to(site).as_posix(): p.read_text(encoding="utf-8") for p in pages_of(site)}


def test_no_numbered_formula_lies_in_an_environment_that_forbids_numbers(pages):
    formulas = [html.unescape(f) for page in pages.values() for f in MATHS.findall(page)]
    assert sum("\\tag" in formula for formula in formulas) > 100
    for formula in formulas:
        inside = re.findall(r"\\begin\{split\}(.*?)\\end\{split\}", formula, re.DOTALL)
        assert not any("\\tag" in part for part in inside), formula


def test_every_numbered_formula_of_a_chapter_keeps_its_number_and_has_an_address(pages):
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        page = pages[f"chapters/{path.stem}.html"]
        text = "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
        for number in TAG.findall(text):
            anchor = f'id="equation-{number.replace(".", "-")}"'
            assert page.count(anchor) == 1, f"{path.name}: ({number})"
            assert f"\\tag{{{number}}}" in page


def test_no_dollar_of_a_formula_is_left_over_in_the_text(pages):
    for name, page in pages.items():
        assert not re.search(r'\$<span class="math|</span>\$', page), name


def test_mathjax_lies_in_the_site_and_no_page_loads_anything_from_the_network(site, pages):
    assert (site / "_static" / "mathjax" / "tex-chtml.js").is_file()
    loads = re.compile(r'<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)="(?:https?:)?//')
    assert not [name for name, page in pages.items() if loads.search(page)]


def test_the_site_has_a_front_door_with_every_chapter_its_question_and_cost(pages):
    front = pages["index.html"]
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        book = read(path).metadata.irlbook
        assert f'href="chapters/{path.stem}.html"' in front
        assert html.escape(book.question, quote=False) in front.replace("’", "'")
    for heading in ("The chapters", "Start", "Licence and citation"):
        assert f"<h2>{heading}" in front
    assert "@misc{irlbook," in re.sub(r"<[^>]+>", "", front)


def test_chapters_are_grouped_by_part_in_the_table_and_in_the_margin_alike(pages):
    front = pages["index.html"]
    margin = re.findall(r'caption-text">([^<]+)</span>', front)
    table = re.findall(r'<p class="rubric">([^<]+)</p>', front)
    assert margin[: len(table)] == table


def test_every_page_describes_itself_to_a_search_engine(pages):
    described = {n for n, page in pages.items() if '<meta name="description" content="' in page}
    written = {n for n in pages if n.startswith(("chapters", "exercises", "solutions", "index"))}
    assert written <= described


def test_numbers_of_equations_chapters_and_terms_are_links(pages):
    page = pages["chapters/06_maximum_entropy_irl.html"]
    assert re.search(r'href="#equation-6-\d+"><span>\(6\.\d+\)', page)
    assert re.search(r'href="03_price_of_information.html"><span>chapter 3', page)
    assert 'href="../docs/glossary.html#term-causal-entropy"' in page
    assert 'id="term-causal-entropy"' in pages["docs/glossary.html"]


def test_every_link_within_the_site_leads_somewhere(site, pages):
    anchors = {name: set(re.findall(r'\bid="([^"]+)"', page)) for name, page in pages.items()}
    for name, page in pages.items():
        for target in re.findall(r'<a\b[^>]*\bhref="([^"]+)"', page):
            if re.match(r"\w+:|//", target) or target in ("#", ""):
                continue
            path, _, anchor = html.unescape(target).partition("#")
            there = (site / name).parent / path if path else site / name
            assert there.resolve().exists(), f"{name} links to {target}"
            known = anchors.get(there.resolve().relative_to(site.resolve()).as_posix())
            if anchor and known is not None:
                assert anchor in known, f"{name} links to {target}"


def test_nothing_is_linked_inside_code(pages):
    for name, page in pages.items():
        if name.startswith(("chapters", "exercises", "solutions")):
            for code in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL):
                assert "equation-" not in code and "term-of-glossary" not in code, name


def test_titles_in_the_lists_of_references_lead_to_the_works(pages):
    page = pages["chapters/09_rewards_from_preferences.html"]
    assert 'href="https://doi.org/10.1093/biomet/39.3-4.324"' in page
    assert 'href="https://arxiv.org/abs/1904.06387"' in page
    assert 'href="../docs/references.html#ref-stigler1994citation"' in page
    assert 'id="ref-stigler1994citation"' in pages["docs/references.html"]


def test_pictures_of_chapters_keep_their_alternative_text(pages):
    for name, page in pages.items():
        if name.startswith("chapters/"):
            for alt in re.findall(r'<img alt="([^"]*)" src="\.\./_images', page):
                assert len(alt) > 20 and not alt.endswith(".png"), f"{name}: {alt}"


def test_figures_of_chapters_have_numbered_captions_in_their_order(pages):
    below = re.compile(
        r'<img [^>]*>\s*<figcaption>.*?"caption-number">(.*?)</span>(.*?)</span>', re.DOTALL
    )
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        figures = list(stored_figures(read(path)))
        page = pages[f"chapters/{path.stem}.html"]
        found = below.findall(page)
        assert [number for number, _ in found] == [f"Figure {f.number}." for f in figures]
        assert [html.unescape(text).strip() for _, text in found] == [
            f.caption.replace("...", "…") for f in figures
        ]
        for figure in figures:
            assert page.count(f'id="figure-{figure.number.replace(".", "-")}"') == 1


def test_solutions_are_folded(pages):
    page = pages["solutions/06_maximum_entropy_irl.html"]
    assert 'class="admonition warning"' in page
    for solution in re.finditer("### BEGIN SOLUTION", page):
        before = page[: solution.start()]
        assert before.count("<details") > before.count("</details>")
