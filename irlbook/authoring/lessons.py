"""docs/lessons.md: of each chapter what an instructor needs in the hour before the class.

All of it stands elsewhere: the question and the summary in the chapter, minutes and points on the
cards, figures in the stored outputs, and the mistakes in the checks.
`python -m irlbook.authoring.course` renews the page.
"""

from __future__ import annotations

import re
from pathlib import Path

from nbformat import NotebookNode

from irlbook.authoring.figures import stored_figures
from irlbook.authoring.notebooks import read, title
from irlbook.authoring.repository import chapters
from irlbook.authoring.requirements import demands
from irlbook.exercises.model import Exercise, all_exercises

__all__ = ["five_minutes", "lesson", "lessons", "likely_mistakes", "survey_places"]

_SURVEY = re.compile(r"\*\*(?:In the survey|Survey)\.?\*\*(.*?)(?:\n\n|\Z)", re.DOTALL)
_SHOWN = 4  # mistakes of one exercise
_TABLE = (
    "| ex. | title | minutes | points | difficulty | importance | mistakes |",
    "|---|---|---|---|---|---|---|",
)


def _text(book: NotebookNode, cells: slice = slice(None)) -> str:
    return "\n\n".join(c.source for c in book.cells[cells] if c.cell_type == "markdown")


def five_minutes(book: NotebookNode) -> str:
    """The list of a chapter's summary: what to say first."""
    found = re.search(r"^## Summary\n(.*?)(?=^## |\Z)", _text(book), re.DOTALL | re.MULTILINE)
    items = re.findall(r"^[*-] .*(?:\n  .*)*", found[1] if found else "", re.MULTILINE)
    text = "\n".join(f"* {item[2:]}" for item in items)
    return re.sub(r"\]\((\d\d_\w+\.ipynb)", r"](../chapters/\1", text)


def survey_places(book: NotebookNode) -> str:
    """What a chapter says about its place in the survey, in one line."""
    found = _SURVEY.search(_text(book, slice(3)))
    text = " ".join(found[1].split()) if found else ""
    text = re.sub(r"^\([^)]*\)", "", text.lstrip(":. ")).lstrip(":. ")
    return text[:1].upper() + text[1:]


def likely_mistakes(exercise: Exercise) -> list[str]:
    """The mistakes that a check names, in its own order; else the planted wrong answers."""
    if exercise.check is None:
        return []
    named = [mistake for demand in demands(exercise.check) for mistake in demand.mistakes]
    return list(dict.fromkeys(named or exercise.wrong_answers))


def _row(exercise: Exercise) -> str:
    if exercise.rubric:
        wrong = "*rubric:* " + "; ".join(c.text.rstrip(".") for c in exercise.rubric)
    else:
        wrong = "; ".join(likely_mistakes(exercise)[:_SHOWN])
    short = exercise.id.lstrip("0")
    kind = "" if exercise.kind == "code" else f" ({exercise.kind})"
    cells = (
        short,
        exercise.title + kind,
        f"{exercise.minutes}",
        f"{exercise.points:g}",
        f"{exercise.difficulty}",
        f"{exercise.importance}",
        wrong,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def lesson(path: Path) -> str:
    """One chapter's part of the page."""
    book, number = read(path), path.stem[:2]
    links, tables = [f"[Chapter](../chapters/{path.name})"], []
    for name, chapter in (("sheet", number), ("lab", f"{number}L")):
        if own := all_exercises(chapter):
            file = path.name
            if name == "lab":
                file = next((path.parents[1] / "exercises").glob(f"{number}_lab_*.ipynb")).name
            minutes, points = sum(e.minutes for e in own), sum(e.points for e in own)
            links.append(
                f"[{name}](../exercises/{file}) of {minutes} minutes and {points:g} points, "
                f"[solutions](../solutions/{file})"
            )
            tables += [f"**The {name}.**", "", *_TABLE, *map(_row, own), ""]
    lines = [f"## {title(book)}", "", f"*{book.metadata['irlbook']['question']}*", ""]
    lines += ["; ".join(links) + ".", ""]
    if places := survey_places(book):
        lines += [f"**In the survey.** {places}", ""]
    lines += ["**To say first.**", "", five_minutes(book), ""]
    lines += [
        "**Figures for the board and for slides.**",
        "",
        *(f"* {figure.title}" for figure in stored_figures(book)),
        "",
    ]
    return "\n".join([*lines, *tables])


def lessons(root: Path) -> str:
    """The lessons of all chapters."""
    return "\n".join(lesson(path) for path in chapters(root))
