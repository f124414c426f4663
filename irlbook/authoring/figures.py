"""The figures of a notebook, with number, caption and text alternative, from its stored outputs.

Figures are numbered in the order of the page: the second one of chapter 3 is figure 3.2. In a
notebook that is no chapter it is figure 2.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nbformat import NotebookNode

from irlbook.authoring.notebooks import title

__all__ = ["StoredFigure", "first_sentence", "stored_figures"]

_CHAPTER = re.compile(r"(\d+) ·")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9])")


@dataclass(frozen=True)
class StoredFigure:
    """A picture that `plotting.show` left in a notebook.

    Attributes:
        number: "3.2" in chapter 3, "2" in a notebook that is no chapter.
        caption: what is drawn, for all readers; the first sentence of `alt` where none was given.
        alt: the text for a reader who cannot see it.
        output: the output that holds it.
    """

    number: str
    caption: str
    alt: str
    output: NotebookNode

    @property
    def title(self) -> str:
        """The caption with its number: "Figure 3.2. Soft values at three prices of a nat." """
        return f"Figure {self.number}. {self.caption}".strip()


def first_sentence(text: str) -> str:
    """The first sentence of a text.

    >>> first_sentence("Error against episodes. It falls to 0.5 and stays.")
    'Error against episodes.'
    """
    return _SENTENCE.split(text, maxsplit=1)[0]


def stored_figures(notebook: NotebookNode) -> Iterator[StoredFigure]:
    """The figures in their order; a picture without any text has an empty caption."""
    chapter = _CHAPTER.match(title(notebook))
    before = f"{chapter.group(1)}." if chapter else ""
    pictures = (
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    )
    for place, output in enumerate(pictures, 1):
        said = output.get("metadata", {}).get("image/png", {})
        alt = " ".join(said.get("alt", "").split())
        caption = said.get("caption", "") or first_sentence(alt)
        yield StoredFigure(f"{before}{place}", caption, alt, output)
