"""A class of 100 sheets graded by the book and by nbgrader, in turns; one process and two.

    python benchmarks/bench_grading.py [--chapter 03] [--sheets 100] [--rounds 5]

The sheets are synthetic: the student's copy of a chapter with, for each exercise, the reference
(half of them), one of the planted wrong answers, or the stub as it was handed out. They lie in five
layouts: a folder a student, nbgrader's, flat files, and the downloads of Canvas and of Moodle. Each
round grades its share of the sheets by the book, with one process, and by `nbgrader autograde`,
which runs each whole notebook in a kernel. Then all sheets are graded by one process and by two, in
turns, each time into an empty folder. What is compared is checked: both give all points to the same
code answers and none to all others, and two processes write the table of one. Wrong answers that
loop on a condition are left out: nbgrader would wait for its timeout.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import nbformat
import numpy as np

ROOT = Path(__file__).resolve().parents[1]

NBGRADER = """
import json, os, resource, sys
from nbgrader.apps import NbGraderAPI
from traitlets.config import Config
config = Config()
config.CourseDirectory.course_id, config.CourseDirectory.root = "class", "."
config.ClearSolutions.code_stub = {"python": "raise NotImplementedError"}
api = NbGraderAPI(config=config)
done = api.generate_assignment("sheet")
assert done["success"], done["log"][-2000:]
for line in sys.stdin:
    scores = {}
    for student in json.loads(line):
        done = api.autograde("sheet", student)
        assert done["success"], done["log"][-2000:]
        with api.gradebook as book:
            cells = book.find_submission_notebook(sys.argv[1], "sheet", student).grades
            scores[student] = {c.name: c.auto_score for c in cells if c.auto_score is not None}
    usage = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    scores["cpu"] = sum(u.ru_utime + u.ru_stime for u in usage)
    print(json.dumps(scores), flush=True)
"""


def sheets(chapter: str, count: int, rng: random.Random):
    """The solution notebook's name, and `count` (student, notebook, {exercise: all points?})."""
    from irlbook.exercises import Edit, all_exercises, release
    from irlbook.exercises.extract import parse_notebook, read_notebook

    (path,) = (ROOT / "solutions").glob(f"{chapter}_*.ipynb")
    exercises = all_exercises(chapter)
    stamped = release.stamp(read_notebook(path), exercises)
    code = parse_notebook(stamped)
    base = release.student_copy(stamped)
    answers: dict[str, list[str]] = {}
    for exercise in exercises:
        answers[exercise.id] = []
        for answer, _ in exercise.wrong_answers.values():
            text = answer if isinstance(answer, str) else ""
            if isinstance(answer, Edit):
                text = release.reference_source(exercise, code).replace(answer.old, answer.new, 1)
            if f"def {exercise.function}(" in text and "while" not in text:
                answers[exercise.id].append(text)
    made = []
    for number in range(count):
        notebook = nbformat.from_dict(json.loads(json.dumps(base)))
        right = {}
        for exercise in exercises:
            if exercise.kind == "written":
                continue
            choice = rng.choice(["right", "right", "wrong", "stub"])
            if choice == "wrong" and not answers[exercise.id]:
                choice = "stub"
            right[exercise.id] = choice == "right"
            source = {
                "right": release.reference_source(exercise, code),
                "wrong": rng.choice(answers[exercise.id] or [""]),
            }.get(choice)
            for cell in notebook.cells:
                is_answer = cell.cell_type == "code" and f"def {exercise.function}(" in cell.source
                if source and is_answer:
                    cell.source = source
        made.append((f"student{number:03d}", notebook, right))
    return path.name, made


def hand_in(folder: Path, name: str, made: list) -> None:
    """Write the sheets in five layouts, in turns."""
    for number, (student, notebook, _) in enumerate(made):
        place = (
            folder / student / name,
            folder / student / "sheet" / name,
            folder / f"{student}_{name}",
            folder / f"{student}_{1000 + number}_{50000 + number}_{name}",
            folder / f"{student}_{1000 + number}_assignsubmission_file_" / name,
        )[number % 5]
        place.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, place)


class Peer:
    """nbgrader in a process of its own, with the class handed in to it; it grades who is named."""

    def __init__(self, home: Path, name: str, made: list) -> None:
        source = home / "source" / "sheet"
        source.mkdir(parents=True)
        (source / name).write_bytes((ROOT / "solutions" / name).read_bytes())
        for student, notebook, _ in made:
            place = home / "submitted" / student / "sheet"
            place.mkdir(parents=True)
            nbformat.write(notebook, place / name)
        self.log = (home / "log.txt").open("w")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home)}
        bin_folder = str(Path(sys.executable).parent)
        environment["PATH"] = os.pathsep.join([bin_folder, os.environ.get("PATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-c", NBGRADER, Path(name).stem],
            cwd=home,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.cpu = 0.0
        self.grade([])  # it has started, and made the assignment

    def grade(self, students: list[str]) -> tuple[dict[str, dict[str, float]], float]:
        """{student: {cell: points}}, and CPU seconds, kernels and all."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(students) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"nbgrader stopped; see {self.log.name}")
        scores = json.loads(line)
        before, self.cpu = self.cpu, scores.pop("cpu")
        return scores, self.cpu - before

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def cpu() -> float:
    """CPU seconds of this process and of what it has waited for."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def passed(summary) -> dict[str, dict[str, bool]]:
    """Who has all points of which code exercise."""
    return {
        s.student.split("_")[0]: {
            e.id: s.results[e.id].status == "ok" for e in s.exercises if e.kind != "written"
        }
        for s in summary.submissions
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chapter", default="03")
    parser.add_argument("--sheets", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    from irlbook.exercises.grading import grade

    def graded(folder: Path, out: Path, jobs: int):
        pages = out.parent / "pages"
        return grade(folder, out, pages, 7, jobs=jobs, progress=False, allow_root=True)

    nbgrader = common.peer("nbgrader", "nbgrader")
    name, made = sheets(options.chapter, options.sheets, random.Random(0))
    size = options.sheets // options.rounds
    wall: dict[str, list[float]] = {"one process": []}
    own_cpu: dict[str, list[float]] = {"one process": []}
    judged = unequal = 0
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        home.chmod(0o755)
        peer = None
        if nbgrader is not None:
            wall["nbgrader"], own_cpu["nbgrader"] = [], []
            peer = Peer(home / "course", name, made)
        for number in range(options.rounds):
            share = made[number * size : (number + 1) * size]
            folder = home / f"round{number}"
            hand_in(folder, name, share)
            begin, used = time.perf_counter(), cpu()
            out = home / f"out{number}" / "grades.csv"
            found = passed(graded(folder, out, 1))
            wall["one process"].append(time.perf_counter() - begin)
            own_cpu["one process"].append(cpu() - used)
            want = {student: right for student, _, right in share}
            assert found == want, "the grader misjudged an answer"
            judged += sum(map(len, want.values()))
            if peer is not None:
                begin = time.perf_counter()
                scores, used = peer.grade([student for student, _, _ in share])
                own_cpu["nbgrader"].append(used)
                wall["nbgrader"].append(time.perf_counter() - begin)
                for student, right in want.items():
                    for id, all_points in right.items():
                        theirs = [
                            v for k, v in scores[student].items() if id.replace(".", "-") in k
                        ]
                        unequal += (sum(theirs) > 0) != all_points
            print(number + 1, {k: round(60 * size / v[-1], 1) for k, v in wall.items()}, flush=True)
        if peer is not None:
            peer.close()
        folder = home / "all"
        hand_in(folder, name, made)
        whole: dict[int, list[float]] = {1: [], 2: []}
        tables = set()
        for number in range(options.rounds):
            for jobs in whole:
                begin = time.perf_counter()
                out = home / f"all{number}-{jobs}" / "grades.csv"
                graded(folder, out, jobs)
                whole[jobs].append(time.perf_counter() - begin)
                tables.add(out.read_bytes())
            print(
                "all", {jobs: round(seconds[-1], 1) for jobs, seconds in whole.items()}, flush=True
            )
        assert len(tables) == 1, "two processes give another table than one"
    times = {name: np.array(seconds) for name, seconds in wall.items()}
    rows = [
        [n, f"{60 * size / np.median(t):.0f}", common.show_seconds(np.median(t) / size)]
        for n, t in times.items()
    ]
    common.table(["", "sheets a minute", "a sheet"], rows)
    ratios = {"two processes against one, all sheets": np.array(whole[1]) / np.array(whole[2])}
    spent = {label: np.array(seconds) for label, seconds in own_cpu.items()}
    if "nbgrader" in times:
        ratios["one process against nbgrader"] = times["nbgrader"] / times["one process"]
        ratios["the same in CPU seconds"] = spent["nbgrader"] / spent["one process"]
    for label, ratio in ratios.items():
        print(label, common.show_ratio(common.spread(ratio)))
    print(f"{judged} code answers judged, none wrongly; nbgrader judged {unequal} otherwise")
    common.save(
        "grading",
        {
            "chapter": options.chapter,
            "sheets": options.sheets,
            "code answers": judged,
            "judged otherwise by nbgrader": unequal,
            "sheets a minute": {n: common.spread(60 * size / t) for n, t in times.items()},
            "cpu seconds a sheet": {
                n: common.spread(np.array(t) / size) for n, t in own_cpu.items()
            },
            "seconds for all sheets": {
                str(j): common.spread(np.array(t)) for j, t in whole.items()
            },
            "ratios": {n: common.spread(r) for n, r in ratios.items()},
            "load": os.getloadavg(),
        },
    )


if __name__ == "__main__":
    main()
