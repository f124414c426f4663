"""Pictures keep the text alternative that the notebook stores, and get a caption with a number.

MyST-NB names a picture by the hash of its bytes and drops what `plotting.show` says about it; here
it is found again by that name. Each becomes a figure with an address of its own: `figure-3-2`.
"""

import base64
import hashlib
from pathlib import PurePosixPath

from docutils import nodes
from sphinx.application import Sphinx

from irlbook.authoring.figures import StoredFigure, stored_figures
from irlbook.authoring.notebooks import read


def by_hash(notebook) -> dict[str, StoredFigure]:  # noqa: ANN001 - a NotebookNode
    """The figures of a notebook by the hash of their bytes."""
    return {
        hashlib.sha256(base64.b64decode(figure.output.data["image/png"])).hexdigest(): figure
        for figure in stored_figures(notebook)
    }


def with_caption(image: nodes.image, figure: StoredFigure) -> nodes.figure:
    """A picture as a figure: "Figure 3.2." and its caption below it."""
    number = nodes.inline("", f"Figure {figure.number}.", classes=["caption-number"])
    caption = nodes.caption("", "", number, nodes.Text(f" {figure.caption}"))
    anchor = f"figure-{figure.number.replace('.', '-')}"
    return nodes.figure("", image, caption, ids=[anchor])


def set_captions(app: Sphinx, doctree: nodes.document) -> None:
    path = app.env.doc2path(app.env.docname)
    if path.suffix != ".ipynb":
        return
    figures = by_hash(read(path))
    for image in list(doctree.findall(nodes.image)):
        figure = figures.get(PurePosixPath(image["uri"]).stem)
        if figure is None:
            continue
        if figure.alt:
            image["alt"] = figure.alt
        if figure.caption:
            place = image.parent.index(image)
            image.parent[place] = with_caption(image.deepcopy(), figure)


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("doctree-read", set_captions)
    return {"version": "1", "parallel_read_safe": True}
