"""From the solution notebook to the student's copy, and the proof that both fit the cards.

`solutions/NN_slug.ipynb` is the one source. `release` first stamps it (cards between
`<!-- card 03.2 -->` and `<!-- /card -->`, nbgrader metadata on the answer and check cells), then
writes `exercises/NN_slug.ipynb`: solutions cut out, hidden tests and outputs removed.
"""

from __future__ import annotations

import ast
import copy
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np

from irlbook.errors import CheckFailed, InvalidExerciseError, NotebookError
from irlbook.exercises.answers import load_function, local_answer
from irlbook.exercises.extract import (
    NotebookCode,
    parse_cells,
    parse_notebook,
    read_notebook,
)
from irlbook.exercises.model import ID, Edit, Exercise, all_exercises, chapter_in, run_check

__all__ = [
    "CODE_STUB",
    "MIN_EXERCISES",
    "MIN_WRONG_ANSWERS",
    "TEXT_STUB",
    "chapter_of",
    "problems",
    "reference",
    "reference_source",
    "release",
    "said_to",
    "stale",
    "stamp",
    "student_copy",
    "verify",
    "wrong_function",
]

CODE_STUB = ("# your code here", "raise NotImplementedError")
TEXT_STUB = "Your answer here."
MIN_WRONG_ANSWERS = 5
MIN_EXERCISES = 4

_CARD = re.compile(rf"<!-- card ({ID}) -->(?:.*?<!-- /card -->)?", re.S)
_ANSWER = re.compile(rf"<!-- answer ({ID}) -->")
_CHECK = re.compile(rf"^[^#\n]*\bcheck\(\s*[\"']({ID})[\"']", re.M)
_BEGIN, _END = "### BEGIN SOLUTION", "### END SOLUTION"
_HIDE, _UNHIDE = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"


def chapter_of(path: Path) -> str:
    """The chapter, from the notebook's name: "03" of 03_slug.ipynb, "03L" of 03_lab_slug.ipynb.

    Raises:
        NotebookError: the name does not begin with it.
    """
    chapter = chapter_in(Path(path).name)
    if not chapter:
        raise NotebookError(f"{Path(path).name}: the name must look like 03_slug.ipynb")
    return chapter


def _nbgrader(grade_id: str, *, grade: bool, solution: bool, points: float | None = None) -> dict:
    meta: dict[str, Any] = {
        "grade": grade,
        "grade_id": grade_id.replace(".", "-"),  # nbgrader takes no dots
        "locked": grade and not solution,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    if points is not None:
        meta["points"] = int(points) if float(points).is_integer() else float(points)
    return meta


def stamp(notebook: nbformat.NotebookNode, exercises: list[Exercise]) -> nbformat.NotebookNode:
    """The solution notebook with its cards filled in and nbgrader's metadata set.

    Stamping twice changes nothing. A written answer is a text cell with `<!-- answer 03.5 -->`, a
    code answer the cell with solution markers that defines the card's function, and its check cell
    the one that calls `check("03.2", ...)`.
    """
    notebook = copy.deepcopy(notebook)
    cards = {e.id: e for e in exercises}
    by_function = {e.function: e for e in exercises if e.function}

    def card_text(match: re.Match[str]) -> str:
        if match[1] not in cards:
            raise NotebookError(f"the notebook shows card {match[1]}, which does not exist")
        return f"<!-- card {match[1]} -->\n{cards[match[1]].markdown()}\n<!-- /card -->"

    for number, cell in enumerate(notebook.cells, start=1):
        cell.metadata.pop("nbgrader", None)
        if cell.cell_type == "markdown":
            cell.source = _CARD.sub(card_text, cell.source)
            found = _ANSWER.search(cell.source)
            if found:
                if found[1] not in cards or cards[found[1]].kind != "written":
                    raise NotebookError(f"cell {number}: no written exercise {found[1]}")
                meta = _nbgrader(
                    f"{found[1]}-answer", grade=True, solution=True, points=cards[found[1]].points
                )
                cell.metadata["nbgrader"] = meta
        elif cell.cell_type == "code":
            if _BEGIN in cell.source:
                code = parse_cells([(number, cell.source)])
                names = [f for f in by_function if code.cells_defining(f)]
                if len(names) != 1:
                    raise NotebookError(
                        f"cell {number}: a solution cell defines exactly one function of a card "
                        f"(found: {', '.join(names) or 'none'})"
                    )
                id = by_function[names[0]].id
                cell.metadata["nbgrader"] = _nbgrader(f"{id}-answer", grade=False, solution=True)
            elif found := _CHECK.search(cell.source):
                if found[1] not in cards:
                    raise NotebookError(f"cell {number}: there is no exercise {found[1]}")
                meta = _nbgrader(
                    f"{found[1]}-check", grade=True, solution=False, points=cards[found[1]].points
                )
                cell.metadata["nbgrader"] = meta
    book = notebook.metadata.setdefault("irlbook", nbformat.NotebookNode())
    book["exercises"] = [e.id for e in exercises]  # beside what the build recorded there
    return notebook


def _cut(source: str, begin: str, end: str, stub: tuple[str, ...], number: int) -> str:
    """Replace every region from a begin marker to its end marker by the stub's lines."""
    lines: list[str] = []
    inside = False
    for line in source.split("\n"):
        mark = line.strip()
        if mark.startswith(begin):
            if inside:
                raise NotebookError(f"cell {number}: `{begin}` twice without `{end}`")
            inside = True
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + text for text in stub]
        elif mark.startswith(end):
            if not inside:
                raise NotebookError(f"cell {number}: `{end}` without `{begin}`")
            inside = False
        elif not inside:
            lines.append(line)
    if inside:
        raise NotebookError(f"cell {number}: `{begin}` without `{end}`")
    return "\n".join(lines)


def student_copy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The student's notebook: no solutions, no hidden tests, no outputs; metadata that matters.

    Args:
        notebook: a stamped solution notebook.

    Raises:
        NotebookError: a marker without its partner.
    """
    notebook = copy.deepcopy(notebook)
    for number, cell in enumerate(notebook.cells, start=1):
        keep = {k: cell.metadata[k] for k in ("nbgrader", "tags") if k in cell.metadata}
        tags = [t for t in keep.pop("tags", []) if not t.startswith("nbval")]
        cell.metadata = nbformat.from_dict({**keep, **({"tags": tags} if tags else {})})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.source = _cut(cell.source, _BEGIN, _END, CODE_STUB, number)
            cell.source = _cut(cell.source, _HIDE, _UNHIDE, (), number).rstrip("\n")
        elif cell.cell_type == "markdown" and (found := _ANSWER.search(cell.source)):
            cell.source = f"{found[0]}\n{TEXT_STUB}"
    keep = {k: v for k, v in notebook.metadata.items() if k in ("kernelspec", "irlbook")}
    keep["irlbook"] = {k: v for k, v in keep.get("irlbook", {}).items() if k != "cost"}
    language = {"name": "python"}
    notebook.metadata = nbformat.from_dict({**keep, "language_info": language})
    return notebook


def _solutions(solutions_dir: Path | str) -> Iterator[Path]:
    folder = Path(solutions_dir)
    if not folder.is_dir():
        raise NotebookError(f"no folder {folder}: where are the solution notebooks?")
    yield from sorted(p for p in folder.glob("[0-9][0-9]_*.ipynb") if p.is_file())


def _dump(notebook: nbformat.NotebookNode) -> str:
    """The notebook as text, the same bytes every time."""
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def _plan(solutions_dir: Path | str, exercises_dir: Path | str) -> Iterator[tuple[Path, str]]:
    """(path, text) of every file as it should be: stamped solutions and student copies."""
    for path in _solutions(solutions_dir):
        exercises = all_exercises(chapter_of(path))
        try:
            stamped = stamp(read_notebook(path), exercises)
            yield path, _dump(stamped)
            yield Path(exercises_dir) / path.name, _dump(student_copy(stamped))
        except NotebookError as error:
            raise NotebookError(f"{path.name}: {error}") from None


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def release(solutions_dir: Path | str, exercises_dir: Path | str) -> list[Path]:
    """Stamp the solution notebooks and write the student copies; returns the student copies.

    Files that are up to date are not touched.

    Raises:
        NotebookError: a notebook whose cells, markers or cards do not fit.
    """
    plan = list(_plan(solutions_dir, exercises_dir))
    Path(exercises_dir).mkdir(parents=True, exist_ok=True)
    for path, text in plan:
        if not _same(path, text):
            path.write_bytes(text.encode())
    return [path for path, _ in plan if path.parent == Path(exercises_dir)]


def stale(solutions_dir: Path | str, exercises_dir: Path | str) -> list[str]:
    """What `release` would change, one line a file; empty when all is up to date."""
    found = []
    plan = list(_plan(solutions_dir, exercises_dir))
    for path, text in plan:
        if not _same(path, text):
            found.append(f"{path.parent.name}/{path.name} is not what `release` would write")
    planned = {path.name for path, _ in plan}
    for path in sorted(Path(exercises_dir).glob("*.ipynb")):
        if path.name not in planned:
            found.append(f"{path.parent.name}/{path.name} has no solution notebook")
    return found


def reference_source(exercise: Exercise, code: NotebookCode) -> str:
    """The source of the reference function, as it stands in the solution notebook."""
    cells = code.cells_defining(exercise.reference)
    if len(cells) != 1:
        raise NotebookError(
            f"exercise {exercise.id}: `{exercise.reference}` must be defined once in the solution "
            f"notebook (found in: {', '.join(f'cell {c}' for c in cells) or 'none'})"
        )
    source = code.sources[cells[0]]
    for node in ast.parse(source).body:
        if getattr(node, "name", None) == exercise.reference:
            return ast.get_source_segment(source, node) or ""
    return source


def reference(exercise: Exercise, code: NotebookCode) -> Callable[..., Any]:
    """The reference function from the parsed solution notebook (this runs its definitions)."""
    reference_source(exercise, code)
    return load_function(code.pieces(exercise.reference), exercise.reference, code.flags)


def wrong_function(exercise: Exercise, name: str, code: NotebookCode) -> Callable[..., Any]:
    """One of the exercise's wrong answers as a function.

    Raises:
        InvalidExerciseError: an edit whose text is not in the reference, or source without the
            function.
    """
    answer = exercise.wrong_answers[name][0]
    if callable(answer):
        return answer
    if isinstance(answer, str):
        namespace = {"np": np, **reference(exercise, code).__globals__}
        namespace.pop(exercise.function, None)
        source = textwrap.dedent(answer)
        exec(compile(source, f"wrong answer {name!r}", "exec"), namespace)
        if exercise.function not in namespace:
            raise InvalidExerciseError(
                f"exercise {exercise.id}: {name!r} does not define `{exercise.function}`"
            )
        return namespace[exercise.function]
    source = reference_source(exercise, code)
    for edit in (answer,) if isinstance(answer, Edit) else answer:
        if edit.old not in source:
            raise InvalidExerciseError(
                f"exercise {exercise.id}: {name!r} replaces {edit.old!r}, "
                "which is not in the reference"
            )
        changed = source.replace(edit.old, edit.new, 1)
        cell = code.cells_defining(exercise.reference)[0]
        whole = code.sources[cell].replace(source, changed, 1)
        sources = {**code.sources, cell: whole}
        code = parse_cells(sources.items())
        source = changed
    return load_function(code.pieces(exercise.reference), exercise.reference, code.flags)


def said_to(exercise: Exercise, function: Callable[..., Any], seed: int) -> str | None:
    """What the check says to an answer with a seed; None where it passes."""
    try:
        answer = local_answer(function, exercise.function, without=exercise.without)
        run_check(exercise, answer, seed)
    except CheckFailed as failed:
        cause = f"\n  the check itself stumbled: {failed.__cause__!r}"
        return str(failed) + (cause if failed.__cause__ is not None else "")
    return None


def problems(exercise: Exercise, code: NotebookCode, seeds: tuple[int, ...]) -> list[str]:
    """What is wrong with a code exercise: reference, stub and wrong answers on these seeds.

    One that trains something (`seconds`) is tried with the first seed only.
    """
    found: list[str] = []
    seeds = seeds[:1] if exercise.seconds else seeds

    try:
        right = reference(exercise, code)
    except Exception as error:
        return [f"{exercise.id}: the reference cannot be loaded: {error}"]
    for seed in seeds:
        said = said_to(exercise, right, seed)
        if said:
            found.append(f"{exercise.id}: the reference fails with seed {seed}:\n{said}")

    def stub(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    said = said_to(exercise, stub, seeds[0])
    if said is None or "there is an answer" not in said:
        found.append(f"{exercise.id}: the stub passes")
    if len(exercise.wrong_answers) < MIN_WRONG_ANSWERS:
        count = len(exercise.wrong_answers)
        found.append(f"{exercise.id}: {count} wrong answers, at least {MIN_WRONG_ANSWERS} wanted")
    for name, (_, pattern) in exercise.wrong_answers.items():
        try:
            wrong = wrong_function(exercise, name, code)
        except Exception as error:
            found.append(f"{exercise.id}: wrong answer {name!r} cannot be loaded: {error}")
            continue
        for seed in seeds:
            said = said_to(exercise, wrong, seed)
            if said is None:
                found.append(f"{exercise.id}: wrong answer {name!r} passes with seed {seed}")
            elif not re.search(pattern, said):
                found.append(
                    f"{exercise.id}: wrong answer {name!r} must be told {pattern!r}, "
                    f"but hears (seed {seed}):\n{said}"
                )
            else:
                continue
            break
    return found


def _notebook_problems(notebook: nbformat.NotebookNode, exercises: list[Exercise]) -> list[str]:
    """Cards, answer cells and check cells that are missing or stand twice."""
    found = []
    if len(exercises) < MIN_EXERCISES:
        found.append(f"{len(exercises)} exercises, at least {MIN_EXERCISES} wanted")
    kinds: set[str] = {e.kind for e in exercises}
    wanted = {"written", "bug hunt"}
    if exercises and exercises[0].chapter.endswith("L"):
        wanted = {"written"} if kinds == {"written"} else {"written", "figure"}
        if "code" in kinds and not any(e.seconds for e in exercises):
            found.append("no exercise of the lab runs the whole (`seconds`)")
    found += [f"no exercise of kind {kind!r}" for kind in sorted(wanted - kinds)]
    texts = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    grade_ids = [c.metadata.get("nbgrader", {}).get("grade_id") for c in notebook.cells]
    for exercise in exercises:
        cells = [f"{exercise.id}-answer"]
        if exercise.kind != "written":
            cells.append(f"{exercise.id}-check")
        for grade_id in cells:
            if (count := grade_ids.count(grade_id.replace(".", "-"))) != 1:
                found.append(f"{exercise.id}: {count} cells for {grade_id}, one wanted")
        if f"<!-- card {exercise.id} -->" not in texts:
            found.append(f"{exercise.id}: no text cell has `<!-- card {exercise.id} -->`")
    return found


def verify(
    solutions_dir: Path | str, exercises_dir: Path | str, seeds: tuple[int, ...] = (1, 2, 3)
) -> list[str]:
    """Every reason why the exercises are not fit to hand out; empty when all is well.

    Checks the rules of the book (at least four exercises a chapter or lab; in a chapter one written
    and one bug hunt, in a lab one written, and where it has code a figure and a run of the whole;
    at least five wrong answers each, every one told of its own mistake; the reference passes and
    the stub fails), that cards, cells and points agree, and that `exercises/` is up to date.
    """
    found: list[str] = []
    chapters_seen = set()
    for path in _solutions(solutions_dir):
        chapter = chapter_of(path)
        chapters_seen.add(chapter)
        exercises = all_exercises(chapter)
        try:
            notebook = read_notebook(path)
            stamped = stamp(notebook, exercises)
            found += [f"{path.name}: {p}" for p in _notebook_problems(stamped, exercises)]
            student_copy(stamped)
            code = parse_notebook(notebook)
        except NotebookError as error:
            found.append(f"{path.name}: {error}")
            continue
        for exercise in exercises:
            if exercise.kind != "written":
                found += problems(exercise, code, seeds)
    for chapter in sorted({e.chapter for e in all_exercises()} - chapters_seen):
        found.append(f"chapter {chapter} has exercises but no solution notebook")
    if not found:
        found += stale(solutions_dir, exercises_dir)
    return found
