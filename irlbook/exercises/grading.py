"""Grade a folder of submissions. It fails closed: without a result there are no points.

Every notebook is read before any code runs. Each exercise of each student runs in its own process
(`sandbox.Worker`), and the comparison with what is right happens here, in a process that executes
no student code. So what an answer breaks is its own, and siblings are graded all the same.

The first run draws the test cases from a seed and writes its results into a journal. Grading the
same folder again, to count marks or late submissions, takes from there what has not changed.
Several processes may grade at once: the results are the same as those of one.
"""

from __future__ import annotations

import json
import secrets
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

import irlbook
from irlbook.errors import CheckFailed, MarksError, RootError, RosterError, UnknownExerciseError
from irlbook.exercises import feedback, marks, sandbox
from irlbook.exercises.answers import Answer
from irlbook.exercises.container import find_bubblewrap
from irlbook.exercises.jobs import in_parallel
from irlbook.exercises.late import LatePolicy, note_lateness
from irlbook.exercises.model import Exercise, all_exercises, full_id, get, in_order, run_check
from irlbook.exercises.partial import points_for, properties
from irlbook.exercises.roster import Roster, assign, read_roster
from irlbook.exercises.sandbox import Worker
from irlbook.exercises.sheet import chapters_of, choose, parse_sheet, weigh
from irlbook.exercises.statistics import (
    class_statistics,
    statistics_csv,
    statistics_page,
    statistics_path,
)
from irlbook.exercises.submissions import (
    Result,
    Submission,
    find_submissions,
    note_duplicates,
    of_chapters,
    read_submission,
)
from irlbook.exercises.tables import csv_text, naming, write_atomically, write_with_copy
from irlbook.exercises.uploads import class_maximum, grades_of, upload_table

__all__ = [
    "GradeSummary",
    "Journal",
    "MUCH_OUTPUT",
    "Progress",
    "grade",
    "grade_exercise",
    "journal_path",
]

MUCH_OUTPUT = 2**20
_NAMED = 8  # names that a line of the summary holds
_AT_ONCE = 4  # notebooks that a process reads before it answers
TIMEOUT, MEMORY_MB = 20.0, 2048

Progress = Callable[[int, int, str], None]


@dataclass
class GradeSummary:
    """What `grade` did.

    Attributes:
        submissions: every notebook found, with its results.
        seed: the seed that drew the cases; grade with it again to get the same.
        out_csv, written_csv: the tables of points and of written answers with their rubrics.
        statistics: the page about the class; the same as a table lies beside it.
        pages: the feedback pages written.
        ignored: files that are no notebooks, or of chapters not asked for.
        kept: how many results were taken from an earlier run.
        carried: students whose marks have no place in this run; the sheet keeps them.
        look_again: how many written answers changed after they were marked.
        as_root: answers ran as root.
        unknown: names that are not in the roster.
        uploaded: what there is to say about the table for the learning platform.
        noticed: what is probably not meant: points by hand that do not count, other options than in
            the run before.
    """

    submissions: list[Submission]
    seed: int
    out_csv: Path
    written_csv: Path | None
    statistics: Path
    pages: list[Path]
    ignored: list[str]
    kept: int = 0
    carried: list[str] = field(default_factory=list)
    look_again: int = 0
    as_root: bool = False
    unknown: list[str] = field(default_factory=list)
    uploaded: list[str] = field(default_factory=list)
    noticed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        students = len({s.student for s in self.submissions})
        not_graded = sum(s.status == "not graded" for s in self.submissions)
        missing = sum(s.status == "missing" for s in self.submissions)
        errors = sum(s.status == "grader error" for s in self.submissions)
        lines = [
            f"{students} students, {len(self.submissions)} notebooks, seed {self.seed}",
            f"points: {self.out_csv}",
        ]
        if self.as_root:
            lines.insert(0, "WARNING: the answers ran as root and could read everything here")
        if self.kept:
            lines.append(
                f"{self.kept} results are those of the first run (another: --regrade, --new-seed)"
            )
        if self.written_csv:
            lines.append(f"written answers to read, with rubrics: {self.written_csv}")
        lines.append(f"the class by exercise and by mistake: {self.statistics}")
        if self.look_again:
            lines.append(f"{self.look_again} written answers changed after they were marked")
        if self.carried:
            names = _first(dict.fromkeys(self.carried))
            lines.append(f"{len(self.carried)} marks not in this run, kept in the sheet: {names}")
        lines += self.noticed
        if self.pages:
            lines.append(f"feedback: {len(self.pages)} pages in {self.pages[0].parent}")
        if missing:
            lines.append(f"{missing} students of the roster handed in nothing")
        if not_graded:
            lines.append(f"{not_graded} notebooks could not be graded (see the message column)")
        if errors:
            lines.append(f"{errors} notebooks met an error of the grader itself: grade them again")
        lines += self.uploaded
        if self.unknown:
            lines.append(f"not in the roster, or two may be meant: {', '.join(self.unknown)}")
        if self.ignored:
            lines.append(f"ignored: {_first(self.ignored)}")
        return "\n".join(lines)


def _first(names: Iterable[str]) -> str:
    """The first names of many, and how many more there are."""
    all_names = list(names)
    more = f" and {len(all_names) - _NAMED} more" if len(all_names) > _NAMED else ""
    return ", ".join(all_names[:_NAMED]) + more


# ------------------------------------------------------------------------------------ grading


def grade_exercise(
    exercise: Exercise,
    submission: Submission,
    *,
    seed: int,
    timeout: float = 20.0,
    memory_mb: int = 2048,
    hidden: tuple[Path, ...] = (),
    bubblewrap: bool = False,
    partial: bool = False,
) -> Result:
    """Grade one exercise of a read submission, in a process of its own.

    It has `timeout` seconds, or those of its card where these are more.

    Args:
        partial: give part of the points for part of the properties (`irlbook.exercises.partial`).
    """
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
            without=exercise.without,
            timeout=max(timeout, exercise.seconds),
            memory_mb=memory_mb,
            hidden=hidden,
            bubblewrap=bubblewrap,
        )
        try:
            with worker, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = Answer(exercise.function, worker.send)
                if partial:
                    found = properties(exercise, answer, seed)
                else:
                    run_check(exercise, answer, seed)
        finally:
            if worker.printed > MUCH_OUTPUT:
                note = f"your code printed {worker.printed / 2**20:.0f} MB; take the prints out"
        if partial and found.failures:
            first = found.failures[0]
            return Result(
                points_for(exercise, found),
                "failed",
                first.property,
                first.detail,
                first.hint,
                note,
                held=tuple(dict.fromkeys(found.held)),
                also=tuple(dict.fromkeys(f.property for f in found.failures[1:])),
            )
        return Result(exercise.points, "ok", note=note)
    except CheckFailed as failed:
        return Result(0.0, "failed", failed.property, failed.detail, failed.hint, note)
    except Exception as error:  # ours, not the student's: no points, and said loudly
        return Result(
            0.0, "error", detail="", note=f"grader error: {type(error).__name__}: {error}"
        )


def _graded(
    tasks: list[tuple[Submission, Exercise]],
    jobs: int,
    starting: Callable[[Submission, Exercise], None],
    **limits: Any,
) -> Iterator[tuple[Submission, Exercise, Result]]:
    """The results of tasks as they finish, `jobs` at a time; `starting` is called before each."""
    if jobs == 1:
        for submission, exercise in tasks:
            starting(submission, exercise)
            yield submission, exercise, grade_exercise(exercise, submission, **limits)
        return
    arguments = []
    for submission, exercise in tasks:
        alone = replace(submission, exercises=[], results={})
        arguments.append((replace(exercise, wrong_answers={}), alone, limits))
    for number, result in in_parallel(_grade_there, arguments, jobs):
        submission, exercise = tasks[number]
        starting(submission, exercise)
        died = "grader error: the process that graded it ended"
        yield submission, exercise, result or Result(0.0, "error", note=died)


def _grade_there(exercise: Exercise, submission: Submission, limits: dict[str, Any]) -> Result:
    """`grade_exercise` in another process."""
    return grade_exercise(exercise, submission, **limits)


class Journal:
    """The seed, the results and the marks of a run, one JSON line each, on disk as they come.

    It stays beside the table of points: an interrupted run goes on where it was, and grading again
    re-draws nothing. Delete it to forget a run altogether.

    Args:
        path: the file; it is read if it exists.
        seed: None keeps the journal's, or draws a secret one; another one starts a new run.
        timeout, memory_mb, partial: limits, and whether part of the points can be had; None keeps
            the journal's. Others grade anew, with the same cases.
        new_seed: draw a new secret seed, and grade everything anew.
    """

    def __init__(
        self,
        path: Path,
        seed: int | None = None,
        *,
        timeout: float | None = None,
        memory_mb: int | None = None,
        partial: bool | None = None,
        new_seed: bool = False,
    ) -> None:
        self.path = path
        self.done: dict[str, Result] = {}
        self.typed: list[dict[str, str]] = []
        self.options: dict[str, str] = {}
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        lines = text.splitlines()
        head = self._parse(lines[0]) if lines else {}
        before = head.get("seed") if isinstance(head.get("seed"), int) else None
        given, options = head.get("limits"), head.get("options")
        limits = given if isinstance(given, dict) else {}
        self.options = options if isinstance(options, dict) else {}
        self.timeout = float(timeout or limits.get("timeout") or TIMEOUT)
        self.memory_mb = int(memory_mb or limits.get("memory_mb") or MEMORY_MB)
        self.partial = bool(limits.get("partial")) if partial is None else partial
        if seed is None:
            seed = before if before is not None and not new_seed else secrets.randbelow(2**31)
        self.seed = int(seed)
        now: dict[str, Any] = {"timeout": self.timeout, "memory_mb": self.memory_mb}
        now |= {"partial": True} if self.partial else {}
        same = self.seed == before and limits == now and not new_seed
        for line in lines[1:]:
            self._take(self._parse(line), same)  # the last line may be torn
        self._head = {"irlbook": irlbook.__version__, "seed": self.seed, "limits": now}
        self._rewrite()

    def _take(self, entry: dict[str, Any], same: bool) -> None:
        result, typed = entry.get("result"), entry.get("typed")
        if same and isinstance(result, dict) and isinstance(entry.get("key"), str):
            self.done[entry["key"]] = Result.of(result)
        if isinstance(typed, list):
            self.typed = typed

    def _rewrite(self) -> None:
        entries = [{"key": key, "result": asdict(result)} for key, result in self.done.items()]
        head = {**self._head, "options": self.options}
        text = [json.dumps(e) for e in (head, *entries, {"typed": self.typed})]
        write_atomically(self.path, "\n".join(text) + "\n")

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
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "result": asdict(result)}) + "\n")

    def forget(self, keys: Iterable[str]) -> None:
        """Forget these results: they are to be graded anew."""
        for key in keys:
            self.done.pop(key, None)
        self._rewrite()

    def remember(self, typed: list[dict[str, str]], options: dict[str, str]) -> None:
        """Remember the rows in which somebody has typed something, and how points were counted."""
        self.typed, self.options = typed, options
        self._rewrite()


def journal_path(out_csv: Path) -> Path:
    """Where the journal lies: beside the table of points, `grades.csv.journal`."""
    return out_csv.with_name(f"{out_csv.name}.journal")


def _key(submission: Submission, exercise: Exercise) -> str:
    """What a result belongs to: the student, the notebook as it was, the exercise."""
    return "/".join((submission.student, submission.notebook, submission.digest, exercise.id))


def _again(tasks: list[tuple[Submission, Exercise]], wanted: Iterable[str]) -> list[str]:
    """The keys of what is to be graded anew: "03.2", or "ann:03.2" for one student.

    Raises:
        UnknownExerciseError: nothing that was handed in fits.
    """
    keys = []
    for text in wanted:
        student, _, id = text.rpartition(":")
        id = full_id(id)
        own = [_key(s, e) for s, e in tasks if e.id == id and student in ("", s.student)]
        if not own:
            whose = f" of {student!r}" if student else ""
            raise UnknownExerciseError(
                f"nothing to regrade: no exercise {id!r}{whose} was handed in, or the sheet "
                "leaves it out (write 03.2, or ann:03.2 for one student)"
            )
        keys += own
    return keys


def grade(
    submissions_dir: Path | str,
    out_csv: Path | str,
    feedback_dir: Path | str | None = None,
    seed: int | None = None,
    timeout: float | None = None,
    memory_mb: int | None = None,
    chapters: list[str] | None = None,
    progress: Progress | bool | None = None,
    *,
    regrade: Iterable[str] = (),
    only: Iterable[str] = (),
    new_seed: bool = False,
    allow_root: bool = False,
    bubblewrap: bool = False,
    partial: bool | None = None,
    jobs: int = 1,
    roster: Path | str | None = None,
    late_policy: LatePolicy | None = None,
    late: Path | str | None = None,
    due: datetime | None = None,
    upload: Path | str | None = None,
    assignment: str = "",
    exercises: str | None = None,
) -> GradeSummary:
    """Grade every notebook of a folder, or count again what was graded before.

    Args:
        submissions_dir: see `find_submissions` for the layouts.
        out_csv: the table of points. Written answers go to `<name>_written.csv` beside it, and the
            run's results to `<out_csv>.journal`.
        feedback_dir: where the students' pages go; None writes none.
        seed: draws the test cases, the same for every student. None keeps the seed and the results
            of the first run, or draws a secret seed; another seed grades everything anew.
        timeout, memory_mb: limits of each exercise; None: those of the first run, or 20 s, 2048 MB.
            A card that gives more seconds has them.
        chapters: grade only these, ["03", "06"]; "03L" is the lab of chapter 3. None: those of the
            sheet of one's own, or all.
        progress: called with (done, total, label); None shows a bar on a terminal, False nothing.
        regrade: exercises to grade anew with the same cases: "03.2", or "ann:03.2" for one student.
        only: the same, and nothing else is run: other exercises keep what they have.
        new_seed: draw a new secret seed and grade everything anew.
        allow_root: let answers run as root where nothing else can be done.
        bubblewrap: run each answer in a bubblewrap container (Linux).
        partial: give part of the points for part of the properties; None: as in the first run, or
            all points or none.
        jobs: how many exercises are graded at once. A script that gives more than one needs the
            guard `if __name__ == "__main__":`, as all that starts processes.
        roster: the list of the class (`irlbook.exercises.roster`): each student gets a row.
        late_policy: what lateness costs; None takes nothing off.
        late: a table of who was late (`irlbook.exercises.late`).
        due: when it was due, where a table says when it was handed in.
        upload: where the table goes that the learning platform takes; it needs the roster.
        assignment: the name of its column; "": irlbook and the chapters.
        exercises: what the sheet holds, and other points than those of the cards, as
            `irlbook.exercises.sheet` reads it; None: all exercises of the chapters.

    Raises:
        NotebookError: there is no such folder.
        MarksError: the sheet of written answers holds a mark that cannot be counted; nothing is
            written.
        RosterError: the roster or the table of lateness cannot be used.
        RootError: the answers would run as root.
        ContainerError: there is no bubblewrap here.
        InvalidHyperparameterError: the sheet is not written so, or lacks one of the chapters.
        KeyboardInterrupt: finished exercises are kept in the journal: run again to go on.
    """
    out_csv = Path(out_csv)
    as_root = not bubblewrap and sandbox.would_run_as_root()
    if as_root and not allow_root:
        raise RootError(
            "the answers would run as root, for the user `nobody` cannot read this Python "
            f"({sys.prefix}): grade as an ordinary user, or with --container bubblewrap or docker; "
            "--allow-root grades all the same"
        )
    if bubblewrap:
        find_bubblewrap()
    group = read_roster(roster) if roster is not None else None
    if upload is not None and group is None:
        raise RosterError("a table to upload has the columns of a roster: give --roster too")
    on_sheet = parse_sheet(exercises) if exercises is not None else {}
    if on_sheet:
        chapters = chapters_of(on_sheet, chapters or ())
    submissions, ignored, unknown = _read_all(submissions_dir, feedback_dir, chapters, group, jobs)
    if on_sheet:
        choose(submissions, on_sheet)
    unknown += note_lateness(submissions, late_policy, late, due, group)
    slots = marks.slots_of(submissions)
    journal = Journal(
        journal_path(out_csv),
        seed,
        timeout=timeout,
        memory_mb=memory_mb,
        partial=partial,
        new_seed=new_seed,
    )
    sheet_path = marks.written_path(out_csv)
    marks.merge(marks.read_sheet(sheet_path), journal.typed, slots)  # before hours of work
    tasks = [(s, get(e.id)) for s in submissions for e in s.exercises]  # in points of the cards
    chosen = _again(tasks, only)
    journal.forget([*_again(tasks, regrade), *chosen])
    waiting: list[tuple[Submission, Exercise]] = []
    for submission, exercise in tasks:
        known = journal.done.get(_key(submission, exercise))
        if known is not None and known.status != "error":
            submission.results[exercise.id] = known
        elif not chosen or exercise.kind == "written" or _key(submission, exercise) in chosen:
            waiting.append((submission, exercise))
    kept = sum(len(s.results) for s in submissions)
    show, close = _reporter(progress, kept + len(waiting))
    done = kept
    limits = {
        "seed": journal.seed,
        "timeout": journal.timeout,
        "memory_mb": journal.memory_mb,
        "hidden": (Path(submissions_dir).resolve(),),
        "bubblewrap": bubblewrap,
        "partial": journal.partial,
    }

    def starting(submission: Submission, exercise: Exercise) -> None:
        show(done, kept + len(waiting), f"{submission.student} {exercise.id}")

    try:
        for submission, exercise, result in _graded(waiting, jobs, starting, **limits):
            if exercise.kind != "written":  # its points stand in the sheet
                journal.add(_key(submission, exercise), result)
            submission.results[exercise.id] = result
            done += 1
        show(done, done, "done")
    finally:
        close()
    for submission in submissions:  # whoever came first, the order is that of the sheet
        order = {e.id: n for n, e in enumerate(submission.exercises)}
        submission.results = dict(sorted(submission.results.items(), key=lambda r: order[r[0]]))
    weigh(submissions)
    sheet = marks.read_sheet(sheet_path)  # as it is now: somebody may have typed on
    placed = marks.merge(sheet, journal.typed, slots)
    look_again = marks.count(submissions, placed)
    rows = marks.table(placed, slots)
    try:
        write_with_copy(out_csv, _points_table(submissions, late_policy is not None), "utf-8-sig")
        uploaded = _write_upload(group, submissions, upload, assignment)
        if rows:
            write_with_copy(sheet_path, marks.sheet_text(sheet, rows), sheet.encoding)
    except OSError as error:
        raise MarksError(
            f"{error.filename or out_csv} cannot be written ({error.strerror}); close it in the "
            "spreadsheet or make room on the disk, and grade again: the results are kept"
        ) from None
    options = {"--sheet": exercises or "", "--late-policy": str(late_policy or "")}
    noticed = [
        f"{name} is not as in the last run, which had {journal.options[name]!r}: give it again?"
        for name, now in options.items()
        if journal.options.get(name, "") not in ("", now)
    ]
    if waiting_by_hand := marks.without_notebook(placed.carried, submissions):
        noticed.append(
            f"points by hand without a notebook that can be read, not counted: "
            f"{_first(waiting_by_hand)}"
        )
    journal.remember(marks.typed_rows(rows), options)
    counted = class_statistics(submissions)
    statistics = statistics_path(out_csv)
    write_atomically(statistics, statistics_page(counted))
    write_atomically(statistics.with_suffix(".csv"), statistics_csv(counted), "utf-8-sig")
    pages = _write_pages(submissions, Path(feedback_dir)) if feedback_dir is not None else []
    carried = [row.cells["student"] for row in placed.carried]
    written = sheet_path if rows else None
    return GradeSummary(
        submissions,
        journal.seed,
        out_csv,
        written,
        statistics,
        pages,
        ignored,
        kept,
        carried,
        look_again,
        as_root,
        unknown,
        uploaded,
        noticed,
    )


def _read_all(
    folder: Path | str,
    feedback_dir: Path | str | None,
    chapters: list[str] | None,
    roster: Roster | None,
    jobs: int,
) -> tuple[list[Submission], list[str], list[str]]:
    """Every submission of the chapters, read; what was ignored; who is not in the roster."""
    submissions, ignored = find_submissions(folder)
    if feedback_dir is not None:
        submissions = [s for s in submissions if not _inside(s, Path(feedback_dir))]
    unknown: list[str] = []
    if roster is not None:
        submissions, unknown = assign(roster, submissions)
    submissions = _read(submissions, jobs)
    if chapters:
        wanted = [full_id(f"{chapter.upper()}.").rstrip(".") for chapter in chapters]
        submissions, others = of_chapters(submissions, wanted)
        ignored += others
    note_duplicates(submissions)
    return submissions, ignored, unknown


def _read(submissions: list[Submission], jobs: int) -> list[Submission]:
    """The submissions, read, `jobs` at a time."""
    if jobs == 1:
        for submission in submissions:
            read_submission(submission)
        return submissions
    parts = [submissions[n : n + _AT_ONCE] for n in range(0, len(submissions), _AT_ONCE)]
    read: dict[int, list[Submission]] = {}
    for number, found in in_parallel(_read_there, [(part,) for part in parts], jobs):
        if found is None:  # one of them ended the process: each is tried on its own, here
            found = _read(parts[number], 1)
        for submission in found:
            if submission.code is not None:
                submission.exercises = all_exercises(submission.chapter)
        read[number] = found
    return [submission for number in sorted(read) for submission in read[number]]


def _read_there(submissions: list[Submission]) -> list[Submission]:
    """`read_submission` in another process; the exercises stay behind, for they hold functions."""
    for submission in submissions:
        read_submission(submission)
        submission.exercises = []
    return submissions


def _inside(submission: Submission, folder: Path) -> bool:
    """Whether a "student" is in truth the folder of feedback pages, put among the submissions."""
    return submission.path is None and submission.student == folder.name and folder.is_dir()


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


def _points_table(submissions: list[Submission], late: bool) -> str:
    """The table of points, as CSV; columns of a roster and of lateness where there are any."""
    exercises = sorted({e.id for s in submissions for e in s.exercises}, key=in_order)
    named = any(s.name for s in submissions)
    late = late or any(s.late for s in submissions)
    head = ["student", *(["name", "section"] if named else []), "notebook", *exercises]
    head += ["points", "max", *(["late", "late_factor", "final"] if late else [])]
    rows: list[list[Any]] = [[*head, "status", "needs_manual", "message"]]
    for s in submissions:
        cells = [s.results[id].points if id in s.results else None for id in exercises]
        manual = " ".join(s.needs_manual)
        errors = [r.note for r in s.results.values() if r.status == "error"]
        message = "; ".join([m for m in (s.message, *errors) if m])
        row: list[Any] = [s.student, *([s.name, s.section] if named else []), s.notebook, *cells]
        row += [s.points, s.maximum, *([s.late, s.factor, s.final] if late else [])]
        rows.append([*row, s.status, manual, message])
    return csv_text(rows)


def _write_upload(
    roster: Roster | None, submissions: list[Submission], path: Path | str | None, assignment: str
) -> list[str]:
    """Write the table that the learning platform takes back; returns what to say about it."""
    if roster is None or path is None:
        return []
    chapters = sorted({s.chapter for s in submissions if s.exercises})
    grades = grades_of(submissions)
    maximum = class_maximum(submissions)
    name = assignment or f"irlbook {' '.join(chapters)}".strip()
    text, said = upload_table(roster, grades, name, maximum)
    write_with_copy(Path(path), text, roster.table.encoding)
    own = [grades[student.key] for student in roster.students]
    waiting = Counter(grade.why for grade in own if grade.points is None)
    lines = [f"to upload: {path}, {len(own) - waiting.total()} of {len(own)} grades"]
    lines += [f"  left empty: {n} ({why})" for why, n in waiting.most_common(6)]
    return lines + ([f"  {said}"] if said else [])


def _write_pages(submissions: list[Submission], folder: Path) -> list[Path]:
    by_student: dict[str, list[Submission]] = {}
    for submission in submissions:
        by_student.setdefault(submission.student, []).append(submission)
    taken: set[str] = set()
    pages = []
    for student, own in by_student.items():
        path = folder / feedback.file_name(student, taken)
        write_atomically(path, feedback.page(student, own), durable=False)
        pages.append(path)
    return pages
