"""Solutions stand on the site below a warning, and folded: nobody reads one by accident."""

import json
import re

from sphinx.application import Sphinx

WARNING = """```{warning}
This page holds the solutions. Each of them is folded: try the exercise first, in the notebook of
the same name under Exercises, where `exercises.check` says which property fails.
```"""
ANSWER = re.compile(r"\s*<!-- answer [\d.]+ -->")
SOLUTION = "### BEGIN SOLUTION"


def fold(notebook: dict) -> dict:
    """A notebook (as JSON) whose solutions and model answers are folded, below a warning."""
    cells = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and SOLUTION in source:
            tags = [*cell["metadata"].get("tags", []), "hide-input"]
            prompt = {"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide it"}
            cell = {**cell, "metadata": {**cell["metadata"], "tags": tags, "mystnb": prompt}}
        elif cell["cell_type"] == "markdown" and ANSWER.match(source):
            folded = f"<details><summary>Show the answer</summary>\n\n{source}\n\n</details>"
            cell = {**cell, "source": folded}
        cells.append(cell)
    first = {**cells[0], "source": "".join(cells[0]["source"]) + "\n\n" + WARNING}
    return {**notebook, "cells": [first, *cells[1:]]}


def read(app: Sphinx, docname: str, content: list[str]) -> None:
    if docname.startswith("solutions/"):
        content[0] = json.dumps(fold(json.loads(content[0])))


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("source-read", read)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
