"""The book as a website, from the outputs that are committed: nothing is executed here.

sphinx-build -W -b html -c docs . build/site
"""

import irlbook

project = "irlbook"
author = "The irlbook authors"
version = release = irlbook.__version__

extensions = ["myst_nb"]
root_doc = "docs/index"
include_patterns = [
    "docs/index.md",
    "docs/notation.md",
    "chapters/*.ipynb",
    "exercises/*.ipynb",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
]
nb_execution_mode = "off"
suppress_warnings = ["myst.header"]  # exercise cards start at the third level
nb_ipywidgets_js = {}  # sliders live in JupyterLab; every one has a static twin on the page
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = "irlbook"
html_theme_options = {"navbar_persistent": [], "use_download_button": True}
html_show_sourcelink = False
