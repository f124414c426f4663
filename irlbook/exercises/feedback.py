"""What a student reads after grading: which property failed and a hint, never the answer."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Sequence

from irlbook.exercises.submissions import Submission

__all__ = ["file_name", "page", "page_head"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1b1b; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
section { border-left: 4px solid #767676; margin: 1rem 0; padding: .1rem 1rem; }
section.ok { border-color: #0072b2; } section.failed { border-color: #d55e00; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem 1rem; overflow-wrap: anywhere; }
.points { float: right; }
table { border-collapse: collapse; margin: 1rem 0; } th { text-align: left; }
th, td { padding: .2rem .6rem .2rem 0; border-bottom: 1px solid #ccc; overflow-wrap: anywhere; }
"""
_WORDS = {
    "ok": "passed",
    "failed": "not yet",
    "manual": "your instructor reads this one",
    "read": "read by your instructor",
    "error": "could not be graded; your instructor has been told",
}


def page_head(title: str) -> list[str]:
    """The first lines of a page, down to the start of its body; the title is escaped."""
    return [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{_STYLE}</style></head><body>",
    ]


def page(student: str, submissions: Sequence[Submission]) -> str:
    """One self-contained HTML page for a student; everything in it is escaped.

    Args:
        student: the student's name, as the folder or file gave it.
        submissions: the student's graded notebooks.
    """
    title = f"Feedback for {next((s.name for s in submissions if s.name), student)}"
    out = [*page_head(title), f"<h1>{html.escape(title)}</h1>"]
    for submission in submissions:
        out.append(f"<h2>{html.escape(submission.notebook)}</h2>")
        if submission.message:
            out.append(f"<p>{html.escape(submission.message)}</p>")
        if submission.results:
            total = f"{submission.points:g} of {submission.maximum:g} points"
            waits = " (written answers not yet read)" if submission.needs_manual else ""
            out.append(f"<p>{total}{waits}</p>")
            if submission.late:
                late = f"{submission.late}: the points count {100 * submission.factor:g} %"
                late += f", which leaves {submission.final:g}"
                out.append(f"<p>{html.escape(late)}</p>")
        for exercise in submission.exercises:
            result = submission.results.get(exercise.id)
            if result is None:
                continue
            got = "–" if result.points is None else f"{result.points:g}"
            out += [
                f'<section class="{html.escape(result.status)}">',
                f'<h3><span class="points">{got} / {exercise.points:g}</span>'
                f"{html.escape(exercise.id)} · {html.escape(exercise.title)}</h3>",
                f"<p>{_WORDS.get(result.status, html.escape(result.status))}</p>",
            ]
            lines = (
                ("What holds", "; ".join(result.held)),
                ("What fails", result.property),
                ("Seen", result.detail),
                ("Hint", result.hint),
                ("What else fails", "; ".join(result.also)),
            )
            terms = [
                f"<dt>{name}</dt><dd>{html.escape(text)}</dd>"
                for name, text in (*lines, ("Note", result.note))
                if text
            ]
            out += [f"<dl>{''.join(terms)}</dl>" if terms else "", "</section>"]
    return "\n".join([*out, "</body></html>", ""])


def file_name(student: str, taken: set[str]) -> str:
    """A safe file name for a student's page, different from those in `taken` (it is added).

    Names that only differ in letter case, or hold what file systems refuse, get a short code.
    """
    plain = re.sub(r"[^\w.-]+", "_", student).strip("._")[:80]
    reserved = re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", plain)
    if plain != student or not plain or reserved or plain.casefold() in taken:
        plain += "-" + hashlib.sha256(student.encode(errors="replace")).hexdigest()[:8]
    taken.add(plain.casefold())
    return f"{plain}.html"
