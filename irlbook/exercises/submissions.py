"""What was handed in: found, read and described, before any of it runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from irlbook.errors import NotebookError
from irlbook.exercises.extract import NotebookCode, parse_notebook, read_notebook
from irlbook.exercises.model import ID, Exercise, all_exercises, chapter_in
from irlbook.exercises.release import TEXT_STUB

__all__ = [
    "MAX_FOLDERS",
    "MISSING",
    "Result",
    "Submission",
    "find_submissions",
    "note_duplicates",
    "of_chapters",
    "read_submission",
    "written_answers",
]

MISSING = "nothing was handed in"
MAX_FOLDERS = 3  # how deep below a student's folder a notebook may lie
# what systems and programs leave behind; a student is never called that
_LITTER = {"__MACOSX", "__pycache__", ".ipynb_checkpoints", ".DS_Store", ".git", ".Trashes"}


@dataclass(frozen=True)
class Result:
    """What became of one exercise.

    `status` is "ok", "failed", "manual" (a written answer that waits for its reader), "read" (one
    that has its points) or "error" (the grader's own fault: no points, and to be graded again).
    `held` and `also` name the properties that held and the further ones that failed, where part of
    the points can be had.
    """

    points: float | None
    status: str
    property: str = ""
    detail: str = ""
    hint: str = ""
    note: str = ""
    held: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @classmethod
    def of(cls, cells: dict[str, Any]) -> Result:
        """A result from the dict that `dataclasses.asdict` and JSON made of it."""
        lists = {name: tuple(cells.get(name, ())) for name in ("held", "also")}
        return cls(**{**cells, **lists})


@dataclass
class Submission:
    """One notebook of one student, and its results.

    Attributes:
        message: why the notebook as a whole cannot be graded, or what is odd about it.
        chapter: the chapter that it belongs to ("": not known).
        texts: written answers by exercise id.
        digest: changes when the code does.
        who, number: the name and the platform's number in the file's name, if they stand there.
        marked_late: the platform marked the file as late.
        label: what the folder or the file called the student, where a roster has another name.
        name, section: of the roster.
        late, factor: how late it was, in words, and what that leaves of its points.
    """

    student: str
    notebook: str
    path: Path | None
    message: str = ""
    chapter: str = ""
    exercises: list[Exercise] = field(default_factory=list)
    code: NotebookCode | None = None
    digest: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    who: str = ""
    number: str = ""
    marked_late: bool = False
    label: str = ""
    name: str = ""
    section: str = ""
    late: str = ""
    factor: float = 1.0

    @property
    def points(self) -> float:
        """Points so far, written answers not counted."""
        return sum(r.points or 0.0 for r in self.results.values())

    @property
    def maximum(self) -> float:
        """Points that can be had, written answers included."""
        return sum(e.points for e in self.exercises)

    @property
    def final(self) -> float:
        """The points that are left when it was late."""
        return self.points * self.factor

    @property
    def needs_manual(self) -> list[str]:
        """The ids of written answers that somebody has to read."""
        return [id for id, r in self.results.items() if r.status == "manual"]

    @property
    def status(self) -> str:
        """One word or two for the table."""
        if not self.exercises:
            return "not graded" if self.path is not None or self.message != MISSING else "missing"
        if any(r.status == "error" for r in self.results.values()):
            return "grader error"
        if len(self.results) < len(self.exercises):
            return "in part"
        return "needs manual" if self.needs_manual else "graded"

    def say(self, message: str) -> None:
        """Add to the message."""
        self.message = "; ".join(filter(None, (self.message, message)))


# Canvas: doejane_LATE_12345_67890_03_maxent-1.ipynb (the second time that it was handed in)
_CANVAS = re.compile(r"(?P<who>[^_]+)_(?P<late>LATE_)?(?P<number>\d+)_\d{3,}_(?P<file>.+)", re.S)
# Moodle: a file or a folder "Jane Doe_12345_assignsubmission_file_"
_MOODLE = re.compile(
    r"(?P<who>.+?)_(?P<number>\d+)_assignsubmission_(?P<kind>file|onlinetext)_?(?P<file>.*)", re.S
)


def _from_platform(submission: Submission, name: str) -> Submission:
    """The submission, with what a learning platform says in the name of its file or folder.

    The name is that of the top level: what lies in a student's folder is named by the student.
    """
    found = _MOODLE.fullmatch(name) or _CANVAS.fullmatch(name)
    if found:
        submission.who, submission.number = found["who"], found["number"]
        submission.marked_late = bool(found.groupdict().get("late"))
        submission.student = f"{submission.who}_{submission.number}"
        if submission.path is not None and submission.path.name == name:
            submission.notebook = found["file"]
    return submission


def _latest(submissions: list[Submission]) -> tuple[list[Submission], list[str]]:
    """Of files that were handed in again, the last; Canvas adds -1, -2 to their names.

    Returns:
        what counts, and the names of what it replaces.
    """
    kept: dict[tuple[str, str, str], tuple[int, Submission]] = {}
    replaced = []
    for place, submission in enumerate(submissions):
        again = re.fullmatch(r"(.+?)(?:-(\d{1,3}))?(\.ipynb)", submission.notebook, re.IGNORECASE)
        path = submission.path
        if not again or not submission.number or path is None or path.name == submission.notebook:
            kept[str(place), "", ""] = (0, submission)
            continue
        key = (submission.who, submission.number, again[1] + again[3])
        version = int(again[2] or 0)
        submission.notebook = again[1] + again[3]
        other = kept.get(key)
        if other is not None:
            older = other[1] if other[0] < version else submission
            replaced.append(f"{older.path.name if older.path else older.student} (handed in again)")
        if other is None or other[0] < version:
            kept[key] = (version, submission)
    return [submission for _, submission in kept.values()], replaced


def find_submissions(folder: Path | str) -> tuple[list[Submission], list[str]]:
    """The notebooks of a folder, unread, and the names of what was ignored.

    Understands DIR/<student>/<notebook>.ipynb, nbgrader's DIR/<student>/<assignment>/<notebook>,
    DIR/<student>_<NN_notebook>.ipynb, and what Canvas and Moodle give to download. Whatever lies
    there is in one list or the other.

    Raises:
        NotebookError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotebookError(f"no folder {folder}: where are the submissions?")
    found: list[Submission] = []
    others: list[str] = []  # files that are no notebooks
    ignored: list[str] = []
    for entry in sorted(folder.iterdir()):
        if entry.name in _LITTER:
            ignored.append(entry.name)
        elif entry.is_dir() and not entry.is_symlink():
            moodle = _MOODLE.fullmatch(entry.name)
            if moodle and moodle["kind"] == "onlinetext":  # beside the files of the same student
                ignored.append(entry.name)
                continue
            found += [_from_platform(s, entry.name) for s in _of_student(entry, ignored)]
        elif _is_notebook(entry):
            match = re.fullmatch(r"(.+?)_(\d\d_.*)", entry.name)
            student, notebook = match.groups() if match else (entry.stem, entry.name)
            found.append(_from_platform(Submission(student, notebook, entry), entry.name))
        elif entry.is_symlink():
            found.append(Submission(entry.name, "", None, "a symbolic link: hand in the files"))
        else:
            others.append(entry.name)
    found, replaced = _latest(found)
    alone, left = _without_notebook(others, found)
    return found + alone, ignored + left + replaced


def _without_notebook(
    names: list[str], found: list[Submission]
) -> tuple[list[Submission], list[str]]:
    """A row for each student of a platform whose only files are no notebooks; the other names."""
    served = {(s.who, s.number) for s in found}
    rows: dict[tuple[str, str], Submission] = {}
    left = []
    for name in names:
        own = _from_platform(Submission(name, "", None), name)
        key = (own.who, own.number)
        if own.number and key not in served:
            row = rows.setdefault(key, own)
            row.say(f"{name} is no notebook: hand in the .ipynb file")
        else:
            left.append(name)
    return list(rows.values()), left


def _of_student(folder: Path, ignored: list[str]) -> list[Submission]:
    left: list[str] = []
    try:
        notebooks = sorted(_notebooks_under(folder, left))
    except OSError as error:
        message = f"the folder cannot be opened ({error.strerror})"
        return [Submission(folder.name, "", None, message)]
    ignored += [f"{folder.name}/{name}" for name in left]
    if not notebooks:
        message = "no notebook in the folder: hand in the .ipynb file"
        return [Submission(folder.name, "", None, message)]
    return [Submission(folder.name, path.name, path) for path in notebooks]


def _is_notebook(path: Path) -> bool:
    """Whether it is named like a notebook ("._x.ipynb" is macOS's note about one)."""
    return path.suffix.lower() == ".ipynb" and not path.name.startswith("._")


def _notebooks_under(folder: Path, left: list[str], above: str = "") -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        name = above + entry.name
        is_folder = entry.is_dir() and not entry.is_symlink()
        if entry.name in _LITTER:
            left.append(name)
        elif is_folder and name.count("/") + 1 < MAX_FOLDERS:
            yield from _notebooks_under(entry, left, f"{name}/")
        elif not is_folder and _is_notebook(entry):
            yield entry
        elif is_folder or entry.is_symlink() or entry.suffix.lower() == ".ipynb":
            left.append(name)  # what might have held a notebook; a data file needs no word


def _chapter_in(name: str) -> str:
    """The chapter or the lab that a folder is named after, if it has exercises."""
    chapter = chapter_in(name)
    return chapter if chapter and all_exercises(chapter) else ""


def _chapter(submission: Submission, notebook: nbformat.NotebookNode) -> str:
    """The chapter that a notebook was handed in for: its name decides, else its assignment's.

    Raises:
        NotebookError: nothing tells the chapter, or the notebook holds another one's exercises.
    """
    own = notebook.metadata.get("irlbook") if isinstance(notebook.metadata, dict) else None
    ids = own.get("exercises") if isinstance(own, dict) else None
    inside = ""
    if isinstance(ids, list) and ids and re.fullmatch(ID, str(ids[0])):
        inside = str(ids[0]).partition(".")[0]
        inside = inside if all_exercises(inside) else ""
    named = chapter_in(submission.notebook)
    if named and not all_exercises(named):
        raise NotebookError(f"chapter {named} has no exercises")
    folder = submission.path.parent.name if submission.path else ""
    assigned = named if named else _chapter_in(folder) if folder != submission.student else ""
    if assigned and inside and assigned != inside:
        raise NotebookError(
            f"handed in for chapter {assigned}, but it holds the exercises of chapter {inside}: "
            "hand in the right notebook, or give this one its own name again"
        )
    if not assigned and not inside:
        raise NotebookError(
            "not an exercise notebook of this book: it names no exercises, and its file name "
            "does not begin with a chapter number (03_...)"
        )
    return assigned or inside


def _without_comments(text: str) -> str:
    """Text without its HTML comments, in one pass (an open comment is left as it is)."""
    kept, start = [], 0
    while (begin := text.find("<!--", start)) >= 0 and (end := text.find("-->", begin)) >= 0:
        kept.append(text[start:begin])
        start = end + 3
    return "".join([*kept, text[start:]])


def written_answers(notebook: nbformat.NotebookNode, exercises: list[Exercise]) -> dict[str, str]:
    """The text of each written answer: its own cell, and text cells added after its card."""
    written: dict[str, list[str]] = {e.id: [] for e in exercises if e.kind == "written"}
    current = None
    for cell in notebook.cells:
        source = cell.source
        card = re.search(rf"<!-- card ({ID}) -->", source)
        if card:
            current = card[1]
            continue
        mark = re.search(rf"<!-- answer ({ID}) -->", source)
        meta = cell.metadata.get("nbgrader")
        grade_id = str(meta.get("grade_id", "")) if isinstance(meta, dict) else ""
        id = mark[1] if mark else grade_id.removesuffix("-answer").replace("-", ".")
        id = id if id in written else current
        text = _without_comments(source).replace(TEXT_STUB, "").strip()
        if id in written and text and cell.cell_type == "markdown":
            written[id].append(text)
    return {id: "\n\n".join(texts) for id, texts in written.items()}


def read_submission(submission: Submission) -> None:
    """Read a notebook into the submission; what is wrong becomes its message."""
    if submission.path is None:
        return
    try:
        notebook = read_notebook(submission.path, outputs=False)
        submission.chapter = _chapter(submission, notebook)
        submission.code = parse_notebook(notebook)
        submission.exercises = all_exercises(submission.chapter)
        submission.texts = written_answers(notebook, submission.exercises)
        text = json.dumps(submission.code.sources, sort_keys=True)
        submission.digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    except NotebookError as error:
        submission.say(str(error))
    except OSError as error:
        submission.say(f"the notebook cannot be opened ({error.strerror})")
    except Exception as error:  # a notebook can hold anything
        submission.say(f"the notebook cannot be read ({type(error).__name__})")


def of_chapters(
    submissions: list[Submission], chapters: list[str]
) -> tuple[list[Submission], list[str]]:
    """The submissions of these chapters, and the names of the others.

    A student who handed in nothing for them keeps a row that says what there was instead.
    """
    kept = [s for s in submissions if not s.chapter or s.chapter in chapters]
    others = [s for s in submissions if s.chapter and s.chapter not in chapters]
    served = {s.student for s in kept}
    for student in dict.fromkeys(s.student for s in others if s.student not in served):
        names = ", ".join(s.notebook for s in others if s.student == student)
        message = f"nothing for chapter {' or '.join(chapters)}; handed in: {names}"
        kept.append(Submission(student, "", None, message))
    return kept, [f"{s.student}/{s.notebook}" for s in others]


def note_duplicates(submissions: list[Submission]) -> None:
    """Say so in both where a student handed in two notebooks for one chapter."""
    seen: dict[tuple[str, str], list[Submission]] = {}
    for submission in submissions:
        if submission.exercises:
            seen.setdefault((submission.student, submission.chapter), []).append(submission)
    for (_, chapter), same in seen.items():
        for submission in same if len(same) > 1 else ():
            submission.say(f"more than one notebook for chapter {chapter}: decide which counts")
