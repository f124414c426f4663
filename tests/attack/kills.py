"""Attack training with SIGKILL: each run goes on, and must end with the bytes of one left alone.

    python tests/attack/kills.py [--n 100] [--seed 0] [--only rloo] [--keep FOLDER] [--commands]

Runs of `irlbook train` (sft, reward, dpo, rloo, raft) on a tiny world are killed at moments drawn
from five stages: while Python imports, while model and data are loaded, during the steps, while a
checkpoint or another file is written, and while the trained model is saved. The same command then
goes on; of the runs that go on some are killed again. At the end every file of the run must be what
an uninterrupted run leaves, and there must be no other: weights, moments, state and metrics byte by
byte, save the one column that is a clock. Status 1 if one is not.

Those killed while they import are commands of their own. The others are processes forked from this
one, which has imported all that they need, and run the same command in a fifth of the time; with
--commands they are commands, too.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tqdm import tqdm

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))

FORK = multiprocessing.get_context("fork" if os.name == "posix" else None)
CLOCK = "tokens_per_second"  # the one number of a run that is a time
STAGES = ("import", "loading", "steps", "writing", "the end")
TIMEOUT = 300.0  # seconds for one run
STEPS = 16
PASSES = ("--steps", STEPS, "--batch-size", 4, "--learning-rate", "1e-3", "--checkpoint-every", 2)
SAMPLES = ("--prompts", 6, "--samples", 4, "--max-new-tokens", 12, "--learning-rate", "1e-3")
METHODS: dict[str, tuple[Any, ...]] = {
    "sft": ("--data", "shown.jsonl", "--held-out", "shown.jsonl", "--evaluate-every", 5, *PASSES),
    "reward": ("--data", "pairs.jsonl", *PASSES),
    "dpo": ("--data", "pairs.jsonl", "--held-out", "pairs.jsonl", "--evaluate-every", 3, *PASSES),
    "rloo": ("--data", "prompts.jsonl", "--reward", "reward.py:length", *SAMPLES,
             "--iterations", 8, "--checkpoint-every", 2),
    "raft": ("--data", "prompts.jsonl", "--reward", "reward.py:length", *SAMPLES,
             "--rounds", 4, "--epochs", 2, "--batch-size", 2, "--checkpoint-every", 2),
}  # fmt: skip
REWARD = """def length(prompts, responses):
    return [len(y) + y.count("a") / 7 for y in responses]
"""
TOPICS = ("cafe", "hotel", "film", "phone", "gym", "bus")


@dataclass
class Course:
    """When an uninterrupted run is where, in seconds of its processor's time."""

    loading: float
    steps: float
    end: float
    writes: int  # files and folders that were seen being written aside


@dataclass
class Report:
    """What was killed and when, and what differed afterwards."""

    runs: Counter[str] = field(default_factory=Counter)
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{'method':8} {'runs':>5}" + "".join(f"{s:>9}" for s in STAGES) + "    kills"]
        for method in METHODS:
            own = [self.kills[method, stage] for stage in STAGES]
            cells = "".join(f"{n:9}" for n in own)
            lines.append(f"{method:8} {self.runs[method]:5}{cells}{sum(own):9}")
        own = [sum(self.kills[method, stage] for method in METHODS) for stage in STAGES]
        cells = "".join(f"{n:9}" for n in own)
        lines.append(f"{'all':8} {self.runs.total():5}{cells}{sum(own):9}")
        lines.append("what the kills left in the run's folder")
        lines += [f"{n:6} {what}" for what, n in self.found.most_common()]
        return "\n".join([*lines, f"failures: {len(self.failures)}"])


# The world ----------------------------------------------------------------------------------------


def make_world(folder: Path) -> Path:
    """A tiny model that has learned to end its responses, data of each kind, and a reward."""
    from irlbook.data import Demonstration, Preference, write_demonstrations, write_preferences
    from irlbook.lm import models
    from irlbook.lm.logprobs import ResponseScorer
    from irlbook.lm.tokenization import encode_prompt, encode_response, train_tokenizer
    from irlbook.posttraining import sft
    from irlbook.training import TrainingConfig, train

    prompts = [f"Review the {topic}, number {i}." for i in range(4) for topic in TOPICS]
    answers = ["It was good.", "It was bad.", "A mess.", "Very good, as always."]
    tokenizer = train_tokenizer([f"{prompt} {' '.join(answers)}" for prompt in prompts], 290)
    model = models.tiny_lm(tokenizer, hidden=32, heads=2, context=64)
    groups = [
        (encode_prompt(tokenizer, prompt), [encode_response(tokenizer, answer)])
        for i, prompt in enumerate(prompts)
        for answer in answers[i % 2 :: 2]
    ]
    quick = TrainingConfig(learning_rate=1e-2, steps=40, progress=False, tensorboard=False)
    train(ResponseScorer(model), groups, sft.objective(groups), quick)
    models.save(model, tokenizer, folder / "start")
    write_demonstrations(
        folder / "shown.jsonl", [Demonstration(p, answers[i % 4]) for i, p in enumerate(prompts)]
    )
    write_preferences(
        folder / "pairs.jsonl",
        [Preference(p, answers[i % 4], answers[(i + 1) % 4]) for i, p in enumerate(prompts)],
    )
    rows = [json.dumps({"prompt": prompt}) for prompt in prompts]
    (folder / "prompts.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "reward.py").write_text(REWARD, encoding="utf-8")
    return folder


def command(method: str, out: Path) -> list[str]:
    """The words after `irlbook`, to be run in the world's folder."""
    words = ["train", method, "--model", "start", "--out", out, "--no-tensorboard"]
    return [*map(str, words), *map(str, METHODS[method])]


def start(words: Sequence[str], world: Path, errors: Path) -> subprocess.Popen:
    """`irlbook WORDS` as a command of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[2])}
    with open(errors, "w", encoding="utf-8") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "irlbook", *words],
            cwd=world,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=file,
        )


class Forked:
    """`irlbook WORDS` in a process forked from this one; as much of Popen as is needed."""

    def __init__(self, words: Sequence[str], world: Path, errors: Path) -> None:
        self.process = FORK.Process(target=_run_forked, args=(words, world, errors))
        self.process.start()
        self.pid = self.process.pid
        self.kill = self.process.kill

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("irlbook", timeout or 0.0)
        return self.process.exitcode


def _run_forked(words: Sequence[str], world: Path, errors: Path) -> None:
    from irlbook import cli

    os.chdir(world)
    with open(errors, "wb") as file, open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
    sys.argv = ["irlbook", *words]
    try:
        cli.main()
    finally:
        sys.stderr.flush()


def prepare() -> float:
    """Import what forked processes will need; the seconds of processor time that it took.

    Nothing is trained here: a process that has computed a gradient cannot be forked into another.
    """
    began = time.process_time()
    import torch

    torch.set_num_threads(1)
    for name in ("accelerate", "transformers.models.llama.modeling_llama", "torch._dynamo"):
        import_module(name)
    for name in ("pipeline", "online_pipeline", "raft"):
        import_module(f"irlbook.posttraining.{name}")
    return time.process_time() - began


# What a run's folder holds ------------------------------------------------------------------------


def contents(out: Path) -> dict[str, bytes]:
    """{file: its bytes}, without what is a clock."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_dir():
            found[f"{name}/"] = b""
        elif path.name == "metrics.csv":
            found[name] = _without_clock(path.read_text(encoding="utf-8"))
        elif path.name == "policy.safetensors":  # RAFT keeps its rounds' histories in the header
            found[name] = _timeless_header(path.read_bytes())
        else:
            found[name] = path.read_bytes()
    return found


def _without_clock(text: str) -> bytes:
    rows = list(csv.reader(io.StringIO(text)))
    kept = [i for i, name in enumerate(rows[0]) if name != CLOCK]
    return "\n".join(",".join(row[i] for i in kept) for row in rows).encode()


def _timeless_header(data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    run = json.loads(header["__metadata__"]["run"])
    for report in run["reports"]:
        for row in report["history"]:
            row.pop(CLOCK, None)
    header["__metadata__"]["run"] = run
    return json.dumps(header).encode() + data[8 + size :]


def differences(a: dict[str, bytes], b: dict[str, bytes]) -> list[str]:
    """Names of files that only one has, or that differ."""
    lacks = [f"{name} is missing" for name in b.keys() - a.keys()]
    more = [f"{name} is left over" for name in a.keys() - b.keys()]
    return sorted(lacks + more + [f"{n} differs" for n in a.keys() & b.keys() if a[n] != b[n]])


def aside(out: Path) -> list[str]:
    """What is being written in or for a run's folder now: its name begins with a dot."""
    found = []
    for _, folders, files in os.walk(out):
        found += [name for name in (*folders, *files) if name.startswith(".")]
        folders[:] = [name for name in folders if not name.startswith(".")]
    return found


def state(out: Path) -> str:
    """What a kill left, in words."""
    if not out.exists():
        return "no folder yet"
    if (out / "model").exists():
        return "the trained model"
    if any("model.new" in name for name in aside(out)):
        return "half a trained model"
    if aside(out):
        return "a file or checkpoint half written"
    whole = any(out.glob("**/step-*")) or (out / "policy.safetensors").exists()
    return "whole checkpoints" if whole else "no checkpoint yet"


# Killing ------------------------------------------------------------------------------------------


def seconds(pid: int) -> float:
    """Processor time of a process: unlike the clock, it does not run while others compute."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def uninterrupted(method: str, world: Path, out: Path, begin: Any, loading: float) -> Course:
    """Run to the end, and note when what begins; `loading` is known."""
    errors = out.with_suffix(".err")
    steps = end = last = 0.0
    writes, busy, began = 0, False, time.monotonic()
    running = begin(command(method, out), world, errors)
    while running.poll() is None:
        if time.monotonic() - began > TIMEOUT:
            running.kill()
            raise TimeoutError(f"{method} took more than {TIMEOUT:.0f} s")
        try:
            last = seconds(running.pid)
        except psutil.Error:  # it has ended
            continue
        now = aside(out)
        if not steps and out.exists():
            steps = last
        if not end and any("model.new" in name for name in now):
            end = last
        writes += bool(now) and not busy
        busy = bool(now)
        time.sleep(0.0005)
    if running.wait():
        raise RuntimeError(f"{method} failed: {errors.read_text(encoding='utf-8')[-500:]}")
    return Course(min(loading, steps), steps, end or last, max(1, writes))


def moment(
    course: Course, stage: str, rng: np.random.Generator, out: Path
) -> Callable[[int], bool]:
    """A test that says of a running process whether it is to be killed now."""
    bounds = {
        "import": (0.0, course.loading),
        "loading": (course.loading, course.steps),
        "steps": (course.steps, course.end),
    }
    if stage in bounds:
        at, late = rng.uniform(*bounds[stage]), rng.uniform(0, 0.01)

        def reached(pid: int) -> bool:
            if seconds(pid) < at:
                time.sleep(0.002)
                return False
            time.sleep(late)  # the processor's time is told in hundredths
            return True

        return reached
    mark = "model.new" if stage == "the end" else "."
    which = 1 if stage == "the end" else int(rng.integers(1, course.writes + 1))
    delay = float(rng.exponential(0.003))
    seen, busy = 0, False

    def now(pid: int) -> bool:
        nonlocal seen, busy
        found = any(mark in name for name in aside(out))
        seen, busy = seen + (found and not busy), found
        if seen < which:
            return False
        time.sleep(delay)
        return True

    return now


def kill_at(
    words: Sequence[str], world: Path, out: Path, when: Callable[[int], bool], begin: Any = start
) -> bool:
    """Start a run and kill it when it is time; False if it ended before."""
    errors, began = out.with_suffix(".err"), time.monotonic()
    running = begin(words, world, errors)
    while running.poll() is None:
        try:
            due = when(running.pid)
        except psutil.Error:
            continue
        if due or time.monotonic() - began > TIMEOUT:
            break
        time.sleep(0.0003)
    running.kill()
    return running.wait() == -signal.SIGKILL


def go_on(words: Sequence[str], world: Path, out: Path, begin: Any = start) -> str:
    """Run to the end; what it said if it failed."""
    errors = out.with_suffix(".err")
    running = begin(words, world, errors)
    try:
        code = running.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        running.kill()
        return f"took more than {TIMEOUT:.0f} s"
    return f"ended with {code}: {errors.read_text(encoding='utf-8')[-400:]}" if code else ""


def attack(
    n: int,
    methods: Sequence[str],
    home: Path,
    seed: int = 0,
    stages: Sequence[str] = STAGES,
    again: float = 0.4,
    commands: bool = False,
    progress: bool = False,
) -> Report:
    """Kill n times, evenly over methods and stages; a share `again` of runs is killed once more."""
    report, rng = Report(), np.random.default_rng(seed)
    importing = prepare()
    usual = start if commands else Forked
    world = home / "world"
    making = FORK.Process(target=make_world, args=(world,))
    making.start()
    making.join()
    wanted: dict[str, dict[str, bytes]] = {}
    courses: dict[str, Course] = {}
    for method in methods:
        loading = importing if commands else 0.0
        courses[method] = uninterrupted(method, world, home / method, usual, loading)
        wanted[method] = contents(home / method)
    with tqdm(total=n, disable=not progress, unit="kill", mininterval=5) as bar:
        tried = 0
        while report.kills.total() < n and tried < 3 * n:
            method = methods[report.runs.total() % len(methods)]
            out = home / f"{method}-{report.runs.total()}"
            words, left = command(method, out), []
            while report.kills.total() < n:
                stage = stages[report.kills.total() % len(stages)]
                tried += 1
                course, begin = courses[method], usual
                if stage == "import":
                    course, begin = replace(course, loading=importing), start
                if not kill_at(words, world, out, moment(course, stage, rng, out), begin):
                    break  # it was quicker: what it left is compared all the same
                report.kills[method, stage] += 1
                left.append(f"{stage} ({state(out)})")
                report.found[state(out)] += 1
                bar.update()
                if rng.random() >= again:
                    break
            report.runs[method] += 1
            said = go_on(words, world, out, usual)
            wrong = [said] if said else differences(contents(out), wanted[method])
            if wrong:
                report.failures.append(f"{out.name}, killed in {', '.join(left)}: {wrong}")
                tqdm.write(report.failures[-1], file=sys.stderr)
            else:
                shutil.rmtree(out)
    if report.kills.total() < n:
        report.failures.append(f"only {report.kills.total()} of {n} kills came in time")
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=METHODS, help="these methods alone")
    parser.add_argument("--keep", type=Path, help="a folder in which failed runs are kept")
    parser.add_argument("--commands", action="store_true", help="fork no run; slow")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    methods = options.only or list(METHODS)
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.keep or Path(temporary)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        report = attack(
            options.n, methods, home, options.seed, commands=options.commands, progress=True
        )
    print(report)
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
