"""Grade a folder of submissions. It fails closed: without a result there are no points.

Every notebook is read before any code runs. Each exercise of each student runs in its own process
(`sandbox.Worker`), and the comparison with what is right happens here, in a process that executes
no student code. So what an answer breaks is its own, and siblings are graded all the same.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from tqdm import tqdm

import irlbook
from irlbook.errors import CheckFailed, NotebookError
from irlbook.exercises import feedback
from irlbook.exercises.answers import Answer
from irlbook.exercises.extract import NotebookCode, parse_notebook, read_notebook
from irlbook.exercises.model import Exercise, all_exercises, run_check
from irlbook.exercises.release import TEXT_STUB
from irlbook.exercises.sandbox import Worker

MUCH_OUTPUT = 2**20
MAX_TEXT = 20_000  # characters of a written answer in the sheet

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Result:
    """What became of one exercise.

    `status` is "ok", "failed", "manual" (a written answer that waits for its reader), "read" (one
    that has its points) or "error" (the grader's own fault: no points, and to be graded again).
    """

    points: float | None
    status: str
    property: str = ""
    detail: str = ""
    hint: str = ""
    note: str = ""


@dataclass
class Submission:
    """One notebook of one student, and its results.

    Attributes:
        message: why the notebook as a whole cannot be graded, or what is odd about it.
        texts: written answers by exercise id.
    """

    student: str
    notebook: str
    path: Path | None
    message: str = ""
    exercises: list[Exercise] = field(default_factory=list)
    code: NotebookCode | None = None
    digest: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)

    @property
    def points(self) -> float:
        """Points so far, written answers not counted."""
        return sum(r.points or 0.0 for r in self.results.values())

    @property
    def maximum(self) -> float:
        """Points that can be had, written answers included."""
        return sum(e.points for e in self.exercises)

    @property
    def needs_manual(self) -> list[str]:
        """The ids of written answers that somebody has to read."""
        return [id for id, r in self.results.items() if r.status == "manual"]

    @property
    def status(self) -> str:
        """One word or two for the table."""
        if not self.exercises:
            return "not graded"
        if any(r.status == "error" for r in self.results.values()):
            return "grader error"
        return "needs manual" if self.needs_manual else "graded"


@dataclass
class GradeSummary:
    """What `grade` did.

    Attributes:
        submissions: every notebook found, with its results.
        seed: the seed that drew the cases; grade with it again to get the same.
        out_csv, written_csv: the tables of points and of written answers with their rubrics.
        pages: the feedback pages written.
        ignored: files that are no notebooks, or of chapters not asked for.
    """

    submissions: list[Submission]
    seed: int
    out_csv: Path
    written_csv: Path | None
    pages: list[Path]
    ignored: list[str]

    def __str__(self) -> str:
        students = len({s.student for s in self.submissions})
        not_graded = sum(s.status == "not graded" for s in self.submissions)
        errors = sum(s.status == "grader error" for s in self.submissions)
        lines = [
            f"{students} students, {len(self.submissions)} notebooks, seed {self.seed}",
            f"points: {self.out_csv}",
        ]
        if self.written_csv:
            lines.append(f"written answers to read, with rubrics: {self.written_csv}")
        if self.pages:
            lines.append(f"feedback: {len(self.pages)} pages in {self.pages[0].parent}")
        if not_graded:
            lines.append(f"{not_graded} notebooks could not be graded (see the message column)")
        if errors:
            lines.append(f"{errors} notebooks met an error of the grader itself: grade them again")
        if self.ignored:
            lines.append(f"ignored: {', '.join(self.ignored[:8])}")
        return "\n".join(lines)


# ------------------------------------------------------------------------------------ reading


def find_submissions(folder: Path | str) -> tuple[list[Submission], list[str]]:
    """The notebooks of a folder, unread, and the names of what was ignored.

    Understands DIR/<student>/<notebook>.ipynb, nbgrader's DIR/<student>/<assignment>/<notebook>,
    and DIR/<student>_<NN_notebook>.ipynb.

    Raises:
        NotebookError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotebookError(f"no folder {folder}: where are the submissions?")
    found, ignored = [], []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith((".", "__")):
            continue
        if entry.is_dir() and not entry.is_symlink():
            notebooks = sorted(_notebooks_under(entry))
            for path in notebooks:
                found.append(Submission(entry.name, path.name, path))
            if not notebooks:
                message = "no notebook in the folder: hand in the .ipynb file"
                found.append(Submission(entry.name, "", None, message))
        elif entry.suffix == ".ipynb":
            match = re.fullmatch(r"(.+?)_(\d\d_.*\.ipynb)", entry.name)
            student, notebook = match.groups() if match else (entry.stem, entry.name)
            found.append(Submission(student, notebook, entry))
        elif entry.is_symlink():
            found.append(Submission(entry.name, "", None, "a symbolic link: hand in the files"))
        else:
            ignored.append(entry.name)
    return found, ignored


def _notebooks_under(folder: Path, depth: int = 3) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():
            if depth > 1:
                yield from _notebooks_under(entry, depth - 1)
        elif entry.suffix == ".ipynb":
            yield entry


def _chapter(submission: Submission, notebook: nbformat.NotebookNode) -> str:
    """The chapter that a notebook belongs to: what it says itself, else its file name."""
    metadata = notebook.metadata if isinstance(notebook.metadata, dict) else {}
    own = metadata.get("irlbook")
    ids = own.get("exercises") if isinstance(own, dict) else None
    if isinstance(ids, list) and ids and re.fullmatch(r"\d\d\.\d{1,2}", str(ids[0])):
        chapter = str(ids[0])[:2]
        if all_exercises(chapter):
            return chapter
    match = re.match(r"(\d\d)_", submission.notebook)
    if match is None:
        raise NotebookError(
            "not an exercise notebook of this book: it names no exercises, and its file name "
            "does not begin with a chapter number (03_...)"
        )
    if not all_exercises(match[1]):
        raise NotebookError(f"chapter {match[1]} has no exercises")
    return match[1]


def written_answers(notebook: nbformat.NotebookNode, exercises: list[Exercise]) -> dict[str, str]:
    """The text of each written answer: its own cell, and text cells added after its card."""
    written = {e.id: [] for e in exercises if e.kind == "written"}
    current = None
    for cell in notebook.cells:
        source = cell.source
        card = re.search(r"<!-- card (\d\d\.\d+) -->", source)
        if card:
            current = card[1]
            continue
        mark = re.search(r"<!-- answer (\d\d\.\d+) -->", source)
        meta = cell.metadata.get("nbgrader")
        grade_id = str(meta.get("grade_id", "")) if isinstance(meta, dict) else ""
        id = mark[1] if mark else grade_id.removesuffix("-answer").replace("-", ".")
        id = id if id in written else current
        text = re.sub(r"<!--.*?-->", "", source, flags=re.S).replace(TEXT_STUB, "").strip()
        if id in written and text and cell.cell_type == "markdown":
            written[id].append(text)
    return {id: "\n\n".join(texts) for id, texts in written.items()}


def read_submission(submission: Submission, chapters: list[str] | None = None) -> bool:
    """Read a notebook into the submission; what is wrong becomes its message.

    Returns:
        False when it belongs to a chapter that was not asked for.
    """
    if submission.path is None:
        return True
    try:
        notebook = read_notebook(submission.path)
        chapter = _chapter(submission, notebook)
        if chapters is not None and chapter not in chapters:
            return False
        submission.code = parse_notebook(notebook)
        submission.exercises = all_exercises(chapter)
        submission.texts = written_answers(notebook, submission.exercises)
        text = json.dumps([submission.code.sources, submission.texts], sort_keys=True)
        submission.digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    except NotebookError as error:
        submission.message = str(error)
    except OSError as error:
        submission.message = f"the notebook cannot be opened ({error.strerror})"
    except Exception as error:  # a notebook can hold anything
        submission.message = f"the notebook cannot be read ({type(error).__name__})"
    return True


# ------------------------------------------------------------------------------------ grading


def grade_exercise(
    exercise: Exercise,
    submission: Submission,
    *,
    seed: int,
    timeout: float = 20.0,
    memory_mb: int = 2048,
    hidden: tuple[Path, ...] = (),
) -> Result:
    """Grade one exercise of a read submission, in a process of its own."""
    if exercise.kind == "written":
        empty = not submission.texts.get(exercise.id)
        return Result(None, "manual", note="no answer was found in the notebook" if empty else "")
    note = ""
    try:
        assert submission.code is not None
        pieces = submission.code.pieces(exercise.function)
        worker = Worker(
            exercise.function,
            pieces,
            flags=submission.code.flags,
            timeout=timeout,
            memory_mb=memory_mb,
            hidden=hidden,
        )
        try:
            with worker, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run_check(exercise, Answer(exercise.function, worker.send), seed)
        finally:
            if worker.printed > MUCH_OUTPUT:
                note = f"your code printed {worker.printed / 2**20:.0f} MB; take the prints out"
        return Result(exercise.points, "ok", note=note)
    except CheckFailed as failed:
        return Result(0.0, "failed", failed.property, failed.detail, failed.hint, note)
    except Exception as error:  # ours, not the student's: no points, and said loudly
        return Result(
            0.0, "error", detail="", note=f"grader error: {type(error).__name__}: {error}"
        )


class Journal:
    """Results as they come, one JSON line each, so that an interrupted run goes on where it was.

    Args:
        path: the file; it is read if it exists.
        seed: the seed of this run; None takes the journal's, or draws one.
    """

    def __init__(self, path: Path, seed: int | None, settings: dict[str, Any]) -> None:
        self.path = path
        self.done: dict[str, Result] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        head = self._parse(lines[0]) if lines else {}
        same = head.get("settings") == settings and seed in (None, head.get("seed"))
        if same and isinstance(head.get("seed"), int):
            self.seed = head["seed"]
            for line in lines[1:]:
                entry = self._parse(line)  # the last line may be torn
                if "key" in entry:
                    self.done[entry["key"]] = Result(**entry["result"])
        else:
            self.seed = secrets.randbelow(2**31) if seed is None else int(seed)
        entries = [{"key": key, "result": asdict(result)} for key, result in self.done.items()]
        text = [json.dumps(e) for e in ({"seed": self.seed, "settings": settings}, *entries)]
        write_atomically(path, "\n".join(text) + "\n")

    @staticmethod
    def _parse(line: str) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def add(self, key: str, result: Result) -> None:
        """Remember a result, on disk at once."""
        self.done[key] = result
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "result": asdict(result)}) + "\n")


def grade(
    submissions_dir: Path | str,
    out_csv: Path | str,
    feedback_dir: Path | str | None = None,
    seed: int | None = None,
    timeout: float = 20.0,
    memory_mb: int = 2048,
    chapters: list[str] | None = None,
    progress: Progress | bool | None = None,
) -> GradeSummary:
    """Grade every notebook of a folder.

    Args:
        submissions_dir: see `find_submissions` for the layouts.
        out_csv: the table of points. Written answers go to `<name>_written.csv` beside it.
        feedback_dir: where the students' pages go; None writes none.
        seed: draws the test cases, the same for every student; None draws a secret one.
        timeout, memory_mb: limits of each exercise.
        chapters: grade only these, ["03", "06"].
        progress: called with (done, total, label); None shows a bar on a terminal, False nothing.

    Raises:
        NotebookError: there is no such folder.
        KeyboardInterrupt: finished exercises are kept in `<out_csv>.journal`: run again to go on.
    """
    out_csv = Path(out_csv)
    chapters = [f"{int(c):02d}" for c in chapters] if chapters else None
    found, ignored = find_submissions(submissions_dir)
    submissions = []
    for submission in found:
        if feedback_dir is not None and _inside(submission, Path(feedback_dir)):
            continue
        if read_submission(submission, chapters):
            submissions.append(submission)
        else:
            ignored.append(f"{submission.student}/{submission.notebook}")
    _note_duplicates(submissions)
    out_csv.parent.mkdir(parents=True, exist_ok=True)
    settings = {"version": irlbook.__version__, "timeout": timeout, "memory_mb": memory_mb}
    journal = Journal(out_csv.with_name(out_csv.name + ".journal"), seed, settings)
    tasks = [(s, e) for s in submissions for e in s.exercises]
    hidden = (Path(submissions_dir).resolve(),)
    show, close = _reporter(progress, len(tasks))
    try:
        for number, (submission, exercise) in enumerate(tasks):
            show(number, len(tasks), f"{submission.student} {exercise.id}")
            key = f"{submission.student}/{submission.path}/{submission.digest}/{exercise.id}"
            result = journal.done.get(key)
            if result is None or result.status == "error":
                result = grade_exercise(
                    exercise,
                    submission,
                    seed=journal.seed,
                    timeout=timeout,
                    memory_mb=memory_mb,
                    hidden=hidden,
                )
                journal.add(key, result)
            submission.results[exercise.id] = result
        show(len(tasks), len(tasks), "done")
    finally:
        close()
    written = _write_tables(submissions, out_csv, _read_marks(written_path(out_csv)))
    pages = _write_pages(submissions, Path(feedback_dir)) if feedback_dir is not None else []
    journal.path.unlink(missing_ok=True)
    return GradeSummary(submissions, journal.seed, out_csv, written, pages, ignored)


def _inside(submission: Submission, folder: Path) -> bool:
    """Whether a "student" is in truth the folder of feedback pages, put among the submissions."""
    return submission.path is None and submission.student == folder.name and folder.is_dir()


def _note_duplicates(submissions: list[Submission]) -> None:
    seen: dict[tuple[str, str], Submission] = {}
    for submission in submissions:
        if not submission.exercises:
            continue
        key = (submission.student, submission.exercises[0].chapter)
        if key in seen:
            for one in (seen[key], submission):
                one.message = f"more than one notebook for chapter {key[1]}: decide which counts"
        seen.setdefault(key, submission)


def _reporter(progress: Progress | bool | None, total: int) -> tuple[Progress, Callable[[], None]]:
    if callable(progress):
        return progress, lambda: None
    off = True if progress is False else None if progress is None else False
    bar = tqdm(total=total, unit="exercise", disable=off, file=sys.stderr)

    def show(done: int, _: int, label: str) -> None:
        bar.set_postfix_str(label[:40], refresh=False)
        bar.update(done - bar.n)

    return show, bar.close


# ------------------------------------------------------------------------------------ writing


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="replace", newline="") as file:
            file.write(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def safe_cell(value: Any) -> str:
    """Text for a CSV cell that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return f"{value:g}"
    text = str(value)
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def _csv(rows: list[list[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerows([safe_cell(value) for value in row] for row in rows)
    return out.getvalue()


def written_path(out_csv: Path) -> Path:
    """Where the sheet of written answers lies: `grades.csv` -> `grades_written.csv`."""
    return out_csv.with_name(f"{out_csv.stem}_written.csv")


_SHEET = ["student", "notebook", "exercise", "criterion", "max", "points", "answer"]


def _read_marks(path: Path) -> dict[tuple[str, ...], float]:
    """The points that an instructor has filled in: (student ... criterion, answer) -> points."""
    marks = {}
    if path.is_file():
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                with contextlib.suppress(ValueError, TypeError):
                    key = tuple(row.get(name) or "" for name in (*_SHEET[:4], "answer"))
                    points, most = float(row.get("points") or ""), float(row.get("max") or "")
                    marks[key] = min(max(points, 0.0), most)
    return marks


def _write_tables(
    submissions: list[Submission], out_csv: Path, marks: dict[tuple[str, ...], float]
) -> Path | None:
    """The table of points, and the instructor's sheet of written answers (None: there are none).

    Points that the sheet already holds are kept and counted, as long as the answer is the same.
    """
    sheet: list[list[Any]] = [_SHEET]
    for s in submissions:
        for exercise in s.exercises:
            got = []
            for criterion in exercise.rubric:
                answer = (s.texts.get(exercise.id) or "(no answer found)")[:MAX_TEXT]
                key = [s.student, s.notebook, exercise.id, criterion.text]
                mark = marks.get(tuple(safe_cell(text) for text in (*key, answer)))
                got.append(mark)
                sheet.append([*key, criterion.points, mark, answer])
            points = [mark for mark in got if mark is not None]
            if got and len(points) == len(got):
                s.results[exercise.id] = Result(sum(points), "read")
    exercises = sorted({e.id for s in submissions for e in s.exercises})
    head = ["student", "notebook", *exercises, "points", "max", "status", "needs_manual", "message"]
    rows: list[list[Any]] = [head]
    for s in submissions:
        cells = [s.results[id].points if id in s.results else None for id in exercises]
        manual = " ".join(s.needs_manual)
        errors = [r.note for r in s.results.values() if r.status == "error"]
        message = "; ".join([m for m in (s.message, *errors) if m])
        row = [s.student, s.notebook, *cells, s.points, s.maximum, s.status, manual, message]
        rows.append(row)
    write_atomically(out_csv, _csv(rows))
    if len(sheet) == 1:
        return None
    write_atomically(written_path(out_csv), _csv(sheet))
    return written_path(out_csv)


def _write_pages(submissions: list[Submission], folder: Path) -> list[Path]:
    by_student: dict[str, list[Submission]] = {}
    for submission in submissions:
        by_student.setdefault(submission.student, []).append(submission)
    taken: set[str] = set()
    pages = []
    for student, own in by_student.items():
        path = folder / feedback.file_name(student, taken)
        write_atomically(path, feedback.page(student, own))
        pages.append(path)
    return pages
