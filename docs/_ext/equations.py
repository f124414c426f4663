r"""Numbered equations: shown with the book's own numbers, with an address each.

Sphinx wraps every displayed formula that holds `\\` in a `split` environment, and TeX allows no
`\tag` inside one: MathJax then shows an error in place of the formula, and no build notices. Here
the tag is taken out and set after the formula, and the formula gets the id `equation-3-9`.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

TAG = re.compile(r"\\tag\*?\s*\{([^{}]*)\}")
NUMBER = re.compile(r"\d+\.\d+")
_ENVIRONMENT = re.compile(r"\\(begin|end)\{")
_SEVERAL_LINES = re.compile(r"\s*\\begin\{(?:align|gather|multline|equation|alignat|eqnarray)\*?\}")


def tags(formula: str) -> list[str]:
    """The numbers that a formula carries, in its order."""
    return TAG.findall(formula)


def breaks_lines(formula: str) -> bool:
    r"""Whether a `\\` stands outside of every environment (aligned, cases, ...).

    >>> breaks_lines(r"a \\ b"), breaks_lines(r"\begin{aligned} a \\ b \end{aligned}")
    (True, False)
    """
    depth = 0
    for mark in re.finditer(r"\\(begin|end)\{|\\\\", formula):
        if mark.group(1):
            depth += 1 if mark.group(1) == "begin" else -1
        elif depth == 0:
            return True
    return False


def tagged(formula: str) -> str:
    r"""A formula with a number as TeX wants it, delimiters included.

    >>> tagged(r"\begin{cases} a \\ b \end{cases} \tag{2.3}")
    '\\[\\begin{cases} a \\\\ b \\end{cases} \\tag{2.3}\\]'
    >>> tagged(r"a \\ b \tag{1.2}")
    '\\[\\begin{split}a \\\\ b\\end{split} \\tag{1.2}\\]'
    """
    if _SEVERAL_LINES.match(formula):
        return re.sub(r"\n\s*\n", "\n", formula)  # such an environment may tag each of its lines
    body = re.sub(r"\n\s*\n", "\n", TAG.sub("", formula)).strip()
    if breaks_lines(body):
        body = rf"\begin{{split}}{body}\end{{split}}"
    return rf"\[{body} \tag{{{tags(formula)[0]}}}\]"


def anchor(number: str) -> str:
    """The id of an equation on its page: 3.9 gives equation-3-9."""
    return "equation-" + number.replace(".", "-")


def _out_of_paragraph(block: nodes.math_block) -> None:
    """A displayed formula in the middle of a paragraph divides it: HTML has no block inside one."""
    paragraph = block.parent
    if not isinstance(paragraph, nodes.paragraph):
        return
    place = paragraph.index(block)
    before, after = paragraph.children[:place], paragraph.children[place + 1 :]
    parts = [nodes.paragraph("", "", *before), block, nodes.paragraph("", "", *after)]
    paragraph.replace_self([part for part in parts if part is block or part.astext().strip()])


def set_numbers(app: Sphinx, doctree: nodes.document) -> None:
    """Rewrite the tagged formulas of one page, and remember where each number stands."""
    known: dict[str, str] = app.env.irlbook_equations  # type: ignore[attr-defined]
    for block in list(doctree.findall(nodes.math_block)):
        _out_of_paragraph(block)
        numbers = tags(block.astext())
        if not numbers:
            continue
        block["no-wrap"] = block["nowrap"] = True
        formula = tagged(block.astext())
        block.clear()
        block += nodes.Text(formula)
        for number in filter(NUMBER.fullmatch, numbers):
            if app.env.docname.startswith("chapters/"):
                block["ids"].append(anchor(number))
                known[number] = app.env.docname


def _start(app: Sphinx, env: BuildEnvironment, *_: object) -> None:
    if not hasattr(env, "irlbook_equations"):
        env.irlbook_equations = {}  # type: ignore[attr-defined]


def _forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    _start(app, env)
    kept = {n: d for n, d in env.irlbook_equations.items() if d != docname}  # type: ignore[attr-defined]
    env.irlbook_equations = kept  # type: ignore[attr-defined]


def _merge(app: Sphinx, env: BuildEnvironment, names: set[str], other: BuildEnvironment) -> None:
    env.irlbook_equations.update(other.irlbook_equations)  # type: ignore[attr-defined]


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("env-before-read-docs", _start)
    app.connect("env-purge-doc", _forget)
    app.connect("env-merge-info", _merge)
    app.connect("doctree-read", set_numbers)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True}
