"""Attack the checks of the exercises: are wrong answers caught, whatever is drawn?

    python tests/attack/wrong_answers.py [--chapter 06 --chapter 06L] [--seeds 20] [--blind]

Each check draws its cases. The tests of the book try three seeds; here each wrong answer of the
book (irlbook/exercises/wrong_answers) runs with SEEDS that they do not use. It is *caught* when the
check fails, and *told* when the failure's message is the one that this mistake must be told. The
references run with the same seeds: one that fails is a false alarm. `--blind` runs the answers of
blind.py instead, which were written from the tasks' text before anybody looked at the checks; what
they must be told was not written down, so they can only be caught.

An exercise that trains takes long. Once it has used `--seconds` of a core no further seed begins,
and the table says with how many it was tried. `--out` keeps each exercise as soon as it is done,
and the same command goes on from there. Status 1 if an answer passes, is told something else, or
a reference fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))

from blind import BLIND  # noqa: E402

from irlbook.exercises import all_exercises, release  # noqa: E402
from irlbook.exercises.extract import NotebookCode, parse_notebook, read_notebook  # noqa: E402
from irlbook.exercises.model import Exercise  # noqa: E402

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions"
SEEDS = range(7001, 8000)  # the tests use 1 to 4, the students' own runs the exercise's number
LIMIT = 120.0  # seconds of a core for one run; the grader stops an answer, too


@dataclass
class Result:
    """How the answers to one exercise ended, as runs: an answer with a seed is one."""

    seeds: int = 0
    answers: int = 0
    runs: int = 0
    caught: int = 0
    told: int = 0
    false_alarms: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)  # answers that passed at least once


class TooSlowError(KeyboardInterrupt):
    """An answer ran into the limit; what an answer raises itself is told to it, and this is not."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Within it a run is stopped after so many seconds of a core, where the system can do that."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@cache
def parsed(chapter: str) -> NotebookCode:
    """The code of a chapter's solution notebook."""
    (path,) = (p for p in SOLUTIONS.glob("*.ipynb") if release.chapter_of(p) == chapter)
    return parse_notebook(read_notebook(path))


def heard(exercise: Exercise, function: Any, seed: int) -> str | None:
    """What the check says to an answer with a seed; None where it passes."""
    try:
        with limited(LIMIT):
            return release.said_to(exercise, function, seed)
    except TooSlowError:
        return f"  fails: it ends within {LIMIT:g} s"


def blind_exercise(exercise: Exercise) -> Exercise:
    """The exercise with the blind answers instead of its own; any message is right for them."""
    wrong = {name: (answer, "") for name, (_, answer) in BLIND.get(exercise.id, {}).items()}
    return replace(exercise, wrong_answers=wrong)


def attack(exercise: Exercise, seeds: Sequence[int], budget: float = 1e9) -> Result:
    """Run reference and wrong answers of an exercise with each seed, until the budget is used."""
    result, begin = Result(answers=len(exercise.wrong_answers)), time.process_time()
    code = parsed(exercise.chapter)
    right = release.reference(exercise, code)
    wrong = {name: release.wrong_function(exercise, name, code) for name in exercise.wrong_answers}
    for seed in seeds:
        if result.seeds and time.process_time() - begin > budget:
            break
        result.seeds += 1
        if (said := heard(exercise, right, seed)) is not None:
            result.false_alarms += 1
            result.failures.append(f"{exercise.id}, the reference, seed {seed}: {said}")
        for name, function in wrong.items():
            said = heard(exercise, function, seed)
            told = said is not None and re.search(exercise.wrong_answers[name][1], said)
            result.runs += 1
            result.caught += said is not None
            result.told += bool(told)
            if said is None and name not in result.missed:
                result.missed.append(name)
            if not told:
                how = "passes" if said is None else f"hears {said}"
                result.failures.append(f"{exercise.id}, {name!r}, seed {seed}: {how}")
    result.seconds = round(time.process_time() - begin, 1)
    return result


def table(results: Mapping[str, Result]) -> str:
    """The counts of each chapter and of all, aligned."""
    chapters: dict[str, list[Result]] = {}
    for id, result in results.items():
        chapters.setdefault(id.partition(".")[0], []).append(result)
    heads = ("exercises", "answers", "runs", "caught", "told", "false", "missed", "seeds")
    rows = ["chapter" + "".join(f"{head:>10}" for head in heads)]
    for name, group in [*chapters.items(), ("all", list(results.values()))]:
        fields = ("answers", "runs", "caught", "told", "false_alarms")
        sums = [len(group), *(sum(getattr(one, key) for one in group) for key in fields)]
        sums += [sum(len(one.missed) for one in group), min(one.seeds for one in group)]
        rows.append(f"{name:7}" + "".join(f"{n:10,}" for n in sums))
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chapter", action="append", help="03, or a lab, 03L; default: all")
    parser.add_argument("--only", default="", help="exercises whose id begins with this: 03.2")
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--seconds", type=float, default=120.0, help="of a core, for an exercise")
    parser.add_argument("--quick", action="store_true", help="leave out what trains something")
    parser.add_argument("--blind", action="store_true", help="the answers of blind.py")
    parser.add_argument("--out", type=Path, help="a .json to keep the counts in, and to go on from")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    chosen = [
        blind_exercise(e) if options.blind else e
        for e in all_exercises()
        if e.kind != "written"
        and e.id.startswith(options.only)
        and not (options.quick and e.seconds)
        and (not options.chapter or e.chapter in options.chapter)
    ]
    if not chosen:
        parser.error("no such exercise; an id begins with two digits, as in 03.2 or 08L.4")
    kept = options.out is not None and options.out.is_file()
    counts = json.loads(options.out.read_text(encoding="utf-8")) if kept else {}
    results = {id: Result(**one) for id, one in counts.items()}
    bar = tqdm([e for e in chosen if e.wrong_answers and e.id not in results], unit="exercise")
    for exercise in bar:
        bar.set_description(exercise.id)
        result = results[exercise.id] = attack(exercise, SEEDS[: options.seeds], options.seconds)
        for failure in result.failures:
            tqdm.write(failure, file=sys.stderr)
        if options.out is not None:
            text = json.dumps({id: asdict(one) for id, one in results.items()}, indent=1)
            options.out.write_text(text, encoding="utf-8")
    print(table({e.id: results[e.id] for e in chosen if e.id in results}))
    return int(any(one.failures for one in results.values()))


if __name__ == "__main__":
    sys.exit(main())
