"""The book as a website, from the outputs that are committed: no notebook is executed here.

sphinx-build -W -b html -c docs . build/site

Our own extensions lie in docs/_ext: what each of them does stands at its head.
"""

import importlib
import inspect
import os
import re
import shutil
import sys
from pathlib import Path

import irlbook
from irlbook.authoring import fronts

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "irlbook"
author = "The irlbook authors"
version = release = irlbook.__version__

# The one place for the address of the repository, for instance https://github.com/NAME/irlbook.
repository_url = os.environ.get("REPOSITORY_URL", "")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",  # MathJax lies in the site: no page needs a network
    "bibliography",
    "crossrefs",
    "equations",
    "figures",
    "front",
    "solutions",
]
root_doc = "index"
include_patterns = [
    "index.md",
    "docs/*.md",
    "docs/reference/*.md",
    "chapters/*.ipynb",
    "exercises/*.ipynb",
    "solutions/*.ipynb",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
]
nb_execution_mode = "off"
nb_code_prompt_show = "Show code"  # of cells tagged hide-input
nb_code_prompt_hide = "Hide code"
suppress_warnings = ["myst.header"]  # exercise cards start at the third level
nb_ipywidgets_js = {}  # sliders live in JupyterLab; every one has a static twin on the page
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_dmath_double_inline = True  # $$...$$ in the middle of a paragraph, as in JupyterLab
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
napoleon_use_ivar = True  # a field that is described above is not described again
autodoc_mock_imports = ["vllm", "peft", "datasets"]  # extras that the docs do not need

html_theme = "sphinx_book_theme"
html_title = "irlbook"
html_favicon = "_static/favicon.svg"
html_theme_options = {
    "navbar_persistent": [],
    "use_download_button": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["irlbook.css"]
html_js_files = [("search.js", {"defer": "defer"})]

# The reference ------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"


def write_reference(app) -> None:
    """One page a room, one section a module, from the docstrings."""
    shutil.rmtree(REFERENCE, ignore_errors=True)
    REFERENCE.mkdir()
    rooms = [name for name in irlbook.__all__ if name not in ("cli", "doctor")]
    for room in rooms:
        package = importlib.import_module(f"irlbook.{room}")
        lines = [f"# irlbook.{room}", ""]
        names = [f"irlbook.{room}"]
        if hasattr(package, "__path__"):
            lines += [inspect.getdoc(package) or "", ""]
            names = [f"irlbook.{room}.{m}" for m in fronts.offers(ROOT / "irlbook" / room)]
        for name in names:
            title = [] if name == f"irlbook.{room}" else [f"## {name}", ""]
            lines += [*title, "```{eval-rst}", f".. automodule:: {name}", "```", ""]
        (REFERENCE / f"{room}.md").write_text("\n".join(lines), encoding="utf-8")
    index = ["# Reference", "", "Every public function and class, by room.", "", "```{toctree}"]
    index += [":maxdepth: 2", "", *rooms, "```", ""]
    (REFERENCE / "index.md").write_text("\n".join(index), encoding="utf-8")


MARKS = re.compile(r"(`[^`]*`)|(\||(?<=\w)_(?!\w)|(?<=\s)\*(?=[\s)]))")
SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")


def keep_mathematics(app, what, name, obj, options, lines: list[str]) -> None:
    """Indented lines are formulas and tables, shown as they stand; pi(a|s) and F_- hold no marks.

    Napoleon reads the sections (Args, Raises, ...) afterwards.
    """
    shown: list[str] = []
    section = block = False
    for line in lines:
        if line.strip() and not line.startswith("    "):
            if block:
                shown.append("")
            section, block = bool(SECTION.match(line)), False
        elif line.strip() and not (section or block):
            block = True
            shown += ["", "::", ""]
        if not block:
            line = MARKS.sub(lambda m: m.group(1) or f"\\{m.group(2)}", line)
        shown.append(line)
    lines[:] = shown


def setup(app) -> None:
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", keep_mathematics, priority=100)  # before napoleon
