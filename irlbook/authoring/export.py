"""A notebook as one HTML page that needs nothing else: no network, no script, no other file.

Formulas become MathML, which every browser of today shows by itself. Links stay as they are: what
is written to another folder is `notebooks.moved` there first.
"""

import copy
import logging
import re
from html import escape
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from irlbook.authoring.figures import stored_figures
from irlbook.authoring.notebooks import WIDGET_VIEW, need_jupyter, title, write_atomically

__all__ = ["PAGE", "mathml", "write_html"]

PAGE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock html_head_js %}
{% block html_head_js_mathjax %}{% endblock html_head_js_mathjax %}
{% block html_head_js_mermaidjs %}{% endblock html_head_js_mermaidjs %}
{% block html_head_css %}
<style>
.jp-InputPrompt, .jp-OutputPrompt {color: #595959 !important; opacity: 1 !important}
:root {--jp-mirror-editor-number-color: #006400; --jp-mirror-editor-operator-color: #8200d8;
 --jp-mirror-editor-comment-color: #2f6565; --jp-mirror-editor-meta-color: #8200d8}
.equation {display: flex; align-items: center; overflow-x: auto; margin: 0.7em 0}
.equation math {flex: 1}
mtd[columnalign="right"] {text-align: right}
mtd[columnalign="left"] {text-align: left}
figure {margin: 0}
figcaption {font-size: 0.9em; max-width: 45em; margin: 0.3em 0 0.6em}
</style>
{% endblock html_head_css %}
{% block data_png scoped %}
<div class="jp-RenderedImage jp-OutputArea-output {{ extra_class }}">
<figure>
<img src="data:image/png;base64,{{ output.data['image/png'] | escape_html }}"
alt="{{ (output | get_metadata('alt', 'image/png') or '') | escape_html }}">
{%- if output | get_metadata('title', 'image/png') %}
<figcaption>{{ output | get_metadata('title', 'image/png') | escape_html }}</figcaption>
{%- endif %}
</figure>
</div>
{% endblock data_png %}
"""
"""nbconvert's page, without what it loads from a network, and with the alt text and the caption."""

_TAG = re.compile(r"\\tag\s*\{([^{}]*)\}")
_SIZES = re.compile(r"\\[bB]ig+[lrm]?\s*(?=\\[lr](?:angle|floor|ceil)\b)")
_ALIGNED = re.compile(r"\\(begin|end)\{(?:aligned|gathered)\}")
_NOT_CONVERTED = re.compile(r">\s*(?:\\+[a-zA-Z]+|&)\s*<")


def mathml(formula: str, display: bool = False) -> str:
    r"""A LaTeX formula as MathML; as LaTeX in `code` where the converter cannot read it.

    A displayed formula stands in a `div`, with its number, from `\tag`, at the right.

    >>> mathml("x^2")
    '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline"><mrow>...</math>'
    >>> mathml(r"\begin{nonsense} x")
    '<code>\\begin{nonsense} x</code>'
    """
    from latex2mathml.converter import convert

    number = _TAG.search(formula)
    body = _SIZES.sub("", _TAG.sub("", formula)).replace(r"\arg", r"\operatorname{arg}")
    body = _ALIGNED.sub(r"\\\1{split}", body)  # the name that the converter knows
    try:
        shown = convert(body.strip(), display="block" if display else "inline")
    except Exception:  # the library raises errors of many kinds
        shown = ""
    if not shown or _NOT_CONVERTED.search(shown) or r"\begin" in shown:
        shown = f"<code>{escape(formula)}</code>"
    if not display:
        return shown
    label = f"<span>({escape(number.group(1))})</span>" if number else ""
    return f'<div class="equation">{shown}{label}</div>'


def write_html(notebook: NotebookNode, path: Path | str) -> None:
    """Write a notebook as one HTML page, in one step.

    Args:
        notebook: with its outputs. Live widgets are left out; each has a static twin.
        path: the page.

    Raises:
        MissingDependencyError: the extra `lab` is not installed.
    """
    need_jupyter("nbconvert", "latex2mathml")
    from jinja2 import DictLoader, pass_context
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return mathml(body)

        def block_math(self, body: str) -> str:
            return mathml(body, display=True)

        def latex_environment(self, name: str, body: str) -> str:
            return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", display=True)

    @pass_context
    def to_html(context: Any, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = Renderer(escape=False, attachments=attachments)
        return str(MarkdownWithMath(renderer=renderer).render(source))

    exporter: Any = HTMLExporter(
        extra_loaders=[DictLoader({"irlbook.html.j2": PAGE})],
        template_file="irlbook.html.j2",
        log=logging.getLogger("irlbook.html"),
        filters={"markdown2html": to_html},
    )
    exporter.log.setLevel(logging.ERROR)
    page, _ = exporter.from_notebook_node(
        _to_be_read(notebook), resources={"metadata": {"name": title(notebook)}}
    )
    write_atomically(path, page)


def _to_be_read(notebook: NotebookNode) -> NotebookNode:
    """A copy without live widgets, its figures with their numbered captions."""
    notebook = copy.deepcopy(notebook)
    for figure in stored_figures(notebook):
        if figure.caption:
            figure.output.metadata["image/png"]["title"] = figure.title
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if WIDGET_VIEW not in o.get("data", {})]
    return notebook
