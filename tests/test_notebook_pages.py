"""The page that `irlbook run` writes: whole by itself, with formulas, links and alt text."""

import base64
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from irlbook.authoring.export import mathml, write_html
from irlbook.authoring.notebooks import read

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.DOTALL)


def page_of(tmp_path, *cells) -> str:
    write_html(new_notebook(cells=list(cells)), tmp_path / "a.html")
    return (tmp_path / "a.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_formula_of_a_chapter_becomes_mathml(path):
    text = "\n\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    formulas = FORMULA.findall(re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL))
    assert formulas
    for shown, inline in formulas:
        assert "<code>" not in mathml(shown or inline, display=bool(shown)), shown or inline


def test_a_page_loads_nothing_and_runs_no_script(tmp_path):
    page = page_of(tmp_path, new_markdown_cell("# A\n\n$x^2$ and\n\n$$\\frac12 \\tag{1.2}$$"))
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in page and "<mfrac>" in page
    assert "<span>(1.2)</span></div>" in page
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)


def test_what_the_converter_cannot_read_stays_readable():
    assert mathml(r"\unknowncommand{x}") == r"<code>\unknowncommand{x}</code>"
    assert mathml(r"a < \nonsense") == r"<code>a &lt; \nonsense</code>"


def test_live_widgets_are_left_out_and_the_notebook_is_not_changed(tmp_path):
    view = "application/vnd.jupyter.widget-view+json"
    data = {view: {"model_id": "a"}, "text/plain": "interactive(children=...)"}
    widget = new_output("display_data", data=data)
    cell = new_code_cell("1", outputs=[widget, new_output("stream", text="kept")])
    page = page_of(tmp_path, cell)
    assert "interactive(children" not in page and "kept" in page
    assert len(cell.outputs) == 2


def test_html_has_the_title_and_alt_text(tmp_path):
    png = base64.b64encode(b"a picture").decode()
    alt = {"image/png": {"alt": 'a "<b>" line'}}
    figure = new_output("display_data", data={"image/png": png}, metadata=alt)
    heading = new_markdown_cell("# 3 · The price of information")
    page = page_of(tmp_path, heading, new_code_cell("1", outputs=[nbformat.from_dict(figure)]))
    assert "<title>3 · The price of information</title>" in page
    assert page.count("<img alt='a \"&lt;b&gt;\" line'") == 1


def test_figures_of_a_chapter_are_numbered_below_with_their_captions(tmp_path):
    png = base64.b64encode(b"a picture").decode()
    said = (
        {"alt": "Two maps. They agree.", "caption": "True & found."},
        {"alt": "A line. It rises."},
    )
    cells = [
        new_code_cell(
            "1",
            outputs=[
                new_output("display_data", data={"image/png": png}, metadata={"image/png": text})
            ],
        )
        for text in said
    ]
    page = page_of(tmp_path, new_markdown_cell("# 3 · Prices"), *cells)
    assert re.findall(r"<figcaption>(.*?)</figcaption>", page) == [
        "Figure 3.1. True &amp; found.",
        "Figure 3.2. A line.",
    ]
    page = page_of(tmp_path, new_markdown_cell("# Lab 3 · Prices"), cells[1])
    assert "<figcaption>Figure 1. A line.</figcaption>" in page
