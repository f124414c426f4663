"""Take the README's figure out of the tour: the pictures of its stops 2 and 5, side by side.

Run `python docs/make_figure.py` after `irlbook notebooks build chapters/00_tour.ipynb`.
"""

import base64
import io
from pathlib import Path

import nbformat
from PIL import Image

ROOT = Path(__file__).parent.parent


def main() -> None:
    tour = nbformat.read(ROOT / "chapters" / "00_tour.ipynb", as_version=4)
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"])))
        for cell in tour.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    _, gridworld, language = pictures
    height = max(gridworld.height, language.height)
    figure = Image.new("RGB", (gridworld.width + language.width, height), "white")
    figure.paste(gridworld, (0, (height - gridworld.height) // 2))
    figure.paste(language, (gridworld.width, (height - language.height) // 2))
    figure.save(ROOT / "docs" / "tour.png", optimize=True)


if __name__ == "__main__":
    main()
