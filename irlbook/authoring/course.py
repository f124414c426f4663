"""The generated parts of docs/teaching.md (what needs what, minutes, points) and docs/lessons.md.

A chapter says in its first cells what it needs. Chapters in the first sentence are needed; those in
later sentences help. Run `python -m irlbook.authoring.course` after either changed.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from nbformat import NotebookNode

from irlbook.authoring.lessons import lessons
from irlbook.authoring.notebooks import read, title, write_atomically
from irlbook.authoring.repository import chapters, find_root
from irlbook.errors import MissingMarksError
from irlbook.exercises.model import all_exercises

__all__ = [
    "PARTS",
    "exercise_table",
    "main",
    "needs_graph",
    "needs_table",
    "prerequisites",
    "renewed",
]

_PART = re.compile(r"\*\*(?:You need|Before it|Prerequisites\.?)\*\*(.*?)(?:\n\n|\Z)", re.DOTALL)
_CHAPTERS = re.compile(r"[Cc]hapters? (\d+)(?:(?:, | and |, and )(\d+))*")


def prerequisites(notebook: NotebookNode) -> tuple[list[int], list[int]]:
    """(chapters that are needed, chapters that help), from a chapter's first cells."""
    text = "\n\n".join(cell.source for cell in notebook.cells[:3] if cell.cell_type == "markdown")
    found = _PART.search(text)
    if not found:
        return [], []
    part = re.sub(r"\]\([^)]*\)", "]", found[1].replace("**Survey", "\0").replace("**In the", "\0"))
    part = " ".join(part.split("\0")[0].split())
    first, _, rest = part.partition(". ")
    here = int(re.match(r"# (\d+)", notebook.cells[0].source)[1])  # type: ignore[index]
    wanted = [_numbers(first), _numbers(rest)]
    if re.search(r"\bhelps\b", first):  # "chapter 10 ...; chapter 11 helps"
        clauses = re.split("; ", first)
        wanted = [
            [n for c in clauses if "helps" not in c for n in _numbers(c)],
            [n for c in clauses if "helps" in c for n in _numbers(c)] + wanted[1],
        ]
    needs = sorted({n for n in wanted[0] if n < here})
    return needs, sorted({n for n in wanted[1] if n < here} - set(needs))


def _numbers(text: str) -> list[int]:
    return [int(n) for m in _CHAPTERS.finditer(text) for n in re.findall(r"\d+", m[0])]


def _by_number(root: Path) -> dict[int, NotebookNode]:
    """The chapters by their numbers, which have gaps while chapters are being written."""
    return {int(path.stem[:2]): read(path) for path in chapters(root)}


def _short(notebook: NotebookNode) -> str:
    return title(notebook).replace("|", "\\|")


def needs_table(root: Path) -> str:
    """Which chapter needs which, as a table."""
    rows = ["| chapter | needs | is helped by | is needed by |", "|---|---|---|---|"]
    books = _by_number(root)
    asked = {number: prerequisites(book) for number, book in books.items()}
    for number, (needs, helps) in asked.items():
        after = [n for n, (others, _) in asked.items() if number in others]
        cells = [", ".join(map(str, numbers)) or "–" for numbers in (needs, helps, after)]
        rows.append(f"| {_short(books[number])} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def needs_graph(root: Path) -> str:
    """The same as a picture (SVG): a line from each chapter to those that need it, left to right.

    A line is left out where a longer way says the same.
    """
    needs = {n: set(prerequisites(book)[0]) for n, book in _by_number(root).items()}
    above: dict[int, set[int]] = {}  # all that a chapter needs, directly or through others
    for number in needs:
        above[number] = needs[number].union(*(above[n] for n in needs[number]))
    level = {0: 0}
    for number in list(needs)[1:]:
        level[number] = 1 + max((level[n] for n in needs[number]), default=-1)
    columns: dict[int, list[int]] = {}
    for number in list(needs)[1:]:
        columns.setdefault(level[number], []).append(number)
    place = {
        n: (60 + 130 * c, 40 + 56 * k) for c, row in columns.items() for k, n in enumerate(row)
    }
    width, height = 120 + 130 * max(columns), 56 * max(map(len, columns.values())) + 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="sans-serif" font-size="16">',
        "<title>Which chapters need which</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (x, y) in place.items():
        for other in sorted(needs[number]):
            if not any(other in above[n] for n in needs[number]):
                (a, b), middle = place[other], (place[other][0] + x) / 2
                out.append(
                    f'<path d="M{a + 20},{b} C{middle:g},{b} {middle:g},{y} {x - 20},{y}" '
                    'fill="none" stroke="#767676" stroke-width="1.5"/>'
                )
    for number, (x, y) in place.items():
        out.append(f'<circle cx="{x}" cy="{y}" r="20" fill="#0072b2"/>')
        out.append(f'<text x="{x}" y="{y + 6}" text-anchor="middle" fill="#ffffff">{number}</text>')
    return "\n".join([*out, "</svg>", ""])


def exercise_table(root: Path) -> str:
    """Minutes and points of the exercises and the lab of each chapter, from their cards."""
    rows = ["| chapter | exercises | minutes | points | lab |", "|---|---|---|---|---|"]
    for number, book in _by_number(root).items():
        own, lab = all_exercises(f"{number:02d}"), all_exercises(f"{number:02d}L")
        if not own and not lab:
            continue
        figures = (len(own), sum(e.minutes for e in own), f"{sum(e.points for e in own):g}")
        words = f"{len(lab)} parts, {sum(e.minutes for e in lab)} minutes" if lab else "–"
        rows.append(f"| {_short(book)} | " + " | ".join(map(str, figures)) + f" | {words} |")
    return "\n".join(rows) + "\n"


# page -> its generated parts
PARTS = {
    "teaching.md": {"needs": needs_table, "minutes": exercise_table},
    "lessons.md": {"lessons": lessons},
}


def renewed(root: Path) -> dict[Path, str]:
    """The pages and the picture with their generated parts, those of them that are stale.

    Raises:
        MissingMarksError: a part has no place, or a chapter's needs cannot be read.
    """
    new = {root / "docs" / "needs.svg": needs_graph(root)}
    for page, parts in PARTS.items():
        text = (root / "docs" / page).read_text(encoding="utf-8")
        for name, make in parts.items():
            place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
            found = place.search(text)
            if found is None:
                raise MissingMarksError(f"docs/{page} has no <!-- {name} --> and <!-- /{name} -->")
            part = f"<!-- {name} -->\n\n{make(root)}\n<!-- /{name} -->"
            text = text[: found.start()] + part + text[found.end() :]
        new[root / "docs" / page] = text
    return {
        path: text
        for path, text in new.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def main() -> None:
    """Renew the parts, or with `--check` fail when they are stale."""
    parser = argparse.ArgumentParser(
        prog="python -m irlbook.authoring.course",
        description="Renew the generated parts of docs/teaching.md and docs/lessons.md.",
    )
    parser.add_argument("--check", action="store_true", help="only fail when they are stale")
    check = parser.parse_args().check
    stale = renewed(find_root())
    if stale and check:
        sys.exit("docs/ is stale; run python -m irlbook.authoring.course")
    for path, text in stale.items():
        write_atomically(path, text)
        print(path.name, "renewed")


if __name__ == "__main__":
    main()
