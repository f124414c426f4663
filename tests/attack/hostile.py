"""Attack the grader: every hostile answer and file, with a container and without.

    python tests/attack/hostile.py [--box plain] [--box bubblewrap] [--only WORD]

Counts unearned points, files touched outside the scratch folder, processes left behind, graders
that slowed down or grew, markup and formulas in what is written. It ends with status 1 if anything
was earned or harmed in a container, or in plain use beyond what the README names.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import re
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from answers import ANSWERS, RISKY  # noqa: E402
from exercises_demo import EXERCISES, solution_notebook  # noqa: E402
from files import BAIT, EARNS, FILES  # noqa: E402

from irlbook.errors import ContainerError  # noqa: E402
from irlbook.exercises import container, get, grading, model, release, sandbox  # noqa: E402
from irlbook.exercises.extract import parse_cells  # noqa: E402
from irlbook.exercises.submissions import Submission  # noqa: E402

TIMEOUT, MEMORY_MB = 5.0, 400
SLOW = 60.0  # seconds for one answer, start and clean-up and all
GROWN_MB = 700  # a reply may be 136 MB, and is decoded once


@dataclass
class Report:
    """What an attack brought: nothing, if the lists are empty."""

    tried: int = 0
    unearned: list[str] = field(default_factory=list)
    harm: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.tried} tried, unearned points in {len(self.unearned)} {self.unearned}, "
            f"harm by {len(self.harm)} {self.harm}, not tried {self.skipped}"
        )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _victim(home: Path) -> Path:
    victim = home / "victim"
    victim.mkdir()
    (victim / "keep.txt").write_text("precious", encoding="utf-8")
    return victim


def _is_whole(victim: Path) -> bool:
    names = [path.name for path in victim.iterdir()]
    return names == ["keep.txt"] and (victim / "keep.txt").read_text() == "precious"


def _left(before: set[int]) -> set[int]:
    """Processes of the answer that still run; those of a container have a moment to end."""
    end = time.monotonic() + 5.0
    while True:
        nurseries = {n.process.pid for n in sandbox._nurseries.values()}
        left = set()
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:  # it has ended, and holds a number
                    left.add(process.pid)
        left -= before | nurseries
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.02)


def locked() -> bool:
    """Whether the kernel confines an answer here."""
    code = parse_cells([(1, "def f():\n    return 1")])
    with sandbox.Worker("f", code.pieces("f")) as worker:
        return worker.landlock


def attack_with_answers(names: list[str], *, bubblewrap: bool = False, log: bool = False) -> Report:
    """Grade hostile answers, one at a time."""
    report = Report()
    exercise = get("06.2")
    chapter = container.PACKAGE / "exercises" / "chapters" / "ch06.py"
    solution = next((ROOT / "solutions").glob("06_*.ipynb"))
    safe = bubblewrap or locked()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        victim, folder = _victim(home), home / "submissions"
        other = folder / "other" / solution.name
        other.parent.mkdir(parents=True)
        other.write_bytes(solution.read_bytes())
        places = {
            "{chapter}": str(chapter),
            "{solution}": str(solution),
            "{other}": str(other),
            "{victim}": str(victim),
            "{submissions}": str(folder),
        }
        for name in names:
            kind, source = ANSWERS[name]
            if name in RISKY and not safe:
                report.skipped.append(name)
                continue
            for word, place in places.items():
                source = source.replace(word, place)
            submission = Submission("x", "06.ipynb", None, exercises=[exercise])
            submission.code = parse_cells([(1, source)])
            before = {p.pid for p in psutil.Process().children(recursive=True)}
            grown, begin = _peak_mb(), time.monotonic()
            result = grading.grade_exercise(
                exercise,
                submission,
                seed=5,
                timeout=TIMEOUT,
                memory_mb=MEMORY_MB,
                hidden=(folder,),
                bubblewrap=bubblewrap,
            )
            took, grown = time.monotonic() - begin, _peak_mb() - grown
            report.tried += 1
            if log:
                said = result.detail or result.note or result.property
                print(
                    f"{kind:10} {name:40} {result.points:g} {took:5.1f} s  {said[:70]}", flush=True
                )
            if result.points:
                report.unearned.append(name)
            left = _left(before)
            wrongs = {
                "the grader failed": result.status == "error",
                "files were touched": not _is_whole(victim) or not other.is_file(),
                "processes were left": bool(left),
                "it was slow": took > SLOW,
                "the grader grew": grown > GROWN_MB,
            }
            report.harm += [f"{name}: {wrong}" for wrong, holds in wrongs.items() if holds]
    return report


def _times(folder: Path, depth: int = 4) -> dict[str, int]:
    """When what lies in a folder was changed, some levels deep."""
    found = {}
    for entry in os.scandir(folder):
        found[entry.path] = entry.stat(follow_symlinks=False).st_mtime_ns
        if depth and entry.is_dir(follow_symlinks=False):
            found |= _times(Path(entry.path), depth - 1)
    return found


def _good() -> dict:
    book = release.stamp(solution_notebook(), EXERCISES)
    return json.loads(nbformat.writes(book))


def attack_with_files(names: list[str], *, bubblewrap: bool = False, log: bool = False) -> Report:
    """Grade a class in which every student hands in something hostile, and look at all of it."""
    report = Report()
    saved = dict(model._REGISTRY)
    model._REGISTRY.update({e.id: e for e in EXERCISES})
    try:
        for name in names:
            home = tempfile.mkdtemp()
            try:
                _attack_with_file(name, Path(home), report, bubblewrap, log)
            finally:
                sandbox._remove(home)  # some are too deep for shutil.rmtree
    finally:
        model._REGISTRY.clear()
        model._REGISTRY.update(saved)
    return report


def _attack_with_file(name: str, home: Path, report: Report, bubblewrap: bool, log: bool) -> None:
    victim, folder = _victim(home), home / "submissions"
    folder.mkdir()
    good = _good()
    (folder / "good").mkdir()
    (folder / "good" / "90_demo.ipynb").write_text(json.dumps(good), encoding="utf-8")
    try:
        FILES[name](folder, "student", good)
    except (OSError, UnicodeError) as problem:  # this file system has no such names
        report.skipped.append(f"{name} ({problem})")
        return
    report.tried += 1
    before = _times(folder)
    handed_in = {entry.name for entry in folder.iterdir()}
    grown, begin = _peak_mb(), time.monotonic()
    summary = grading.grade(
        folder,
        home / "out" / "grades.csv",
        home / "pages",
        5,
        TIMEOUT,
        MEMORY_MB,
        progress=False,
        allow_root=True,
        bubblewrap=bubblewrap,
    )
    took, grown = time.monotonic() - begin, _peak_mb() - grown
    own = [s for s in summary.submissions if s.student != "good"]
    points = max((s.points for s in own), default=0.0)
    if log:
        said = "; ".join(s.message for s in own) or str([s.status for s in own])
        print(f"{name:45} {points:g} {took:5.1f} s  {said[:80]}", flush=True)
    if points and name not in EARNS:
        report.unearned.append(name)
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in summary.pages]
    texts.append(summary.statistics.read_text(encoding="utf-8"))
    tables = [summary.out_csv, summary.written_csv, summary.statistics.with_suffix(".csv")]
    cells = [
        cell
        for path in filter(None, tables)
        for row in csv.reader(path.read_text(encoding="utf-8-sig", errors="replace").splitlines())
        for cell in row
    ]
    named = {s.student for s in summary.submissions} | {i.split("/")[0] for i in summary.ignored}
    written = {p.resolve().parent for p in summary.pages} - {(home / "pages").resolve()}
    siblings = [s.points for s in summary.submissions if s.student == "good"]
    wrongs = {
        "a tag got into a page": any(
            BAIT in t or re.search(r"<img|<b>x|on\w+=alert\(1\)>", t) for t in texts
        ),
        "a formula got into a table": any(c.startswith(("=", "+", "-", "@")) for c in cells),
        "somebody vanished": not {re.sub(r"_90_.*", "", n) for n in handed_in} <= named,
        "a sibling lost points": siblings != [7.0],
        "files were touched": not _is_whole(victim) or before != _times(folder),
        "a page lies elsewhere": bool(written),
        "it was slow": took > SLOW,
        "the grader grew": grown > GROWN_MB,
        "the grader failed": any(s.status == "grader error" for s in summary.submissions),
    }
    report.harm += [f"{name}: {wrong}" for wrong, holds in wrongs.items() if holds]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--box", action="append", choices=["plain", "bubblewrap"])
    parser.add_argument("--only", default="", help="attacks whose name holds this")
    options = parser.parse_args()
    worst = 0
    for box in options.box or ["plain", "bubblewrap"]:
        inside = box == "bubblewrap"
        try:
            if inside:
                container.find_bubblewrap()
        except ContainerError as problem:
            print(f"bubblewrap: {problem}")
            continue
        print(f"--- {box}; the kernel confines answers: {inside or locked()}")
        for what, attack, all_names in (
            ("answers", attack_with_answers, ANSWERS),
            ("files", attack_with_files, FILES),
        ):
            names = [name for name in all_names if options.only in name]
            report = attack(names, bubblewrap=inside, log=True)
            print(f"=== {box}, {what}: {report}", flush=True)
            worst |= bool(report.unearned or report.harm)
    return worst


if __name__ == "__main__":
    sys.exit(main())
