"""Small notebooks for the tests of the notebook tools."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from irlbook.authoring.notebooks import normalise, record_cost

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)

FIRST = """# 3 · The price of information
<!-- cost --><!-- /cost -->
Why does it cost?

"""
FIRST += 12 * "A page to read holds more text than code.\n\n"

LAST = """> **Is this normal?** It is.

## Summary
## References
## Exercises
[Here](../exercises/03_price.ipynb), and `[no](link.md)`, $[a](b)$."""


def notebook(*sources: str, **book: object) -> NotebookNode:
    """A notebook that was not executed: a source that begins with # or > is markdown."""
    cells = [
        new_markdown_cell(source) if source.startswith(("# ", ">")) else new_code_cell(source)
        for source in sources
    ]
    return new_notebook(cells=cells, metadata={"irlbook": book} if book else {})


def save(nb: NotebookNode, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path)
    return path


def chapter() -> NotebookNode:
    """A chapter, as if executed, that breaks no rule."""
    nb = notebook(
        FIRST,
        "import irlbook\nirlbook.doctor()",
        "from irlbook import plotting, stats\nfig = 1",
        'plotting.show(fig, alt="one line")',
        'stats.verdict("it rises", True)',
        "x = 1",
        "y = 2",
        LAST,
    )
    printed = {1: "irlbook: environment ok\n", 4: "ok: it rises\n"}
    codes = [i for i, cell in enumerate(nb.cells) if cell.cell_type == "code"]
    for count, index in enumerate(codes, start=1):
        cell = nb.cells[index]
        cell.execution_count = count
        if index in printed:
            cell.outputs = [new_output("stream", name="stdout", text=printed[index])]
    nb.cells[3].outputs = [figure()]
    for cell in nb.cells[3:5]:
        cell.metadata["tags"] = ["hide-input"]
    record_cost(nb, 3.0, 100.0)
    return normalise(nb)


def figure(mime: str = "image/png", alt: str = "one line") -> NotebookNode:
    """The output of plotting.show."""
    return new_output(
        "display_data",
        data={mime: PNG, "text/plain": f"Figure: {alt}"},
        metadata={mime: {"alt": alt}} if alt else {},
    )
