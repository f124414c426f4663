"""Attack the unit tests: change the library in one small place, and see whether a test fails.

    pip install mutmut && python tests/attack/mutants.py planning --n 100 --seed 0

A room with long tests is measured in parts: `--modules dpo sft` draws from these modules alone and
runs the room's test files that import one of them, `--tests` names test files instead of all of the
room, and `--longest` leaves out single tests by their time. The modules and files are printed: what
the others would kill counts as survived.

mutmut (3.8) writes the mutants of a room (`<` for `<=`, 1 for 2, `None` for a value, an argument
left out, ...) and finds the tests that reach each function. Its own runner hands the tests over by
name, and stops at names like ours, with brackets and line ends; so here a sample of the mutants is
run in forks of one process that has imported the tests already. Chapters are not run: a mutant that
only a notebook would notice survives.

Prints for each room the share that was killed, with the survivors as differences and by kind: those
that change a text (of an error message, say), a default, a number or other code.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# A room of the library, and the names of the test files that are its unit tests.
ROOMS: Mapping[str, tuple[str, str]] = {
    "mdp": ("irlbook/mdp.py", "mdp moves envs_gymnasium envs_worlds planning"),
    "planning": ("irlbook/planning.py", "planning moves mdp enumerable maxent"),
    "irl": (
        "irlbook/irl/*.py",
        "maxent maxent_paths moves irl_* deep_maxent bayesian labyrinth chapter_05 chapter_06"
        " chapter_07",
    ),
    "imitation": ("irlbook/imitation/*.py", "adversarial gail imitation* chapter_04 chapter_08"),
    "preferences": (
        "irlbook/preferences/*.py",
        "preference* active_preferences embedding_trial hidden_context social_choice chapter_09"
        " chapter_16 chapter_17",
    ),
    "rl": ("irlbook/rl/*.py", "rl_* sparse_rewards chapter_02 chapter_13 chapter_21"),
    "lm": ("irlbook/lm/*.py", "lm_* enumerable costs posttraining_plain chapter_10 chapter_22"),
    "posttraining": (
        "irlbook/posttraining/*.py",
        "posttraining_* active_preferences advpo costs staleness reasoning reward_kinds"
        " social_choice sparse_language demonstrations training book_models chapter_1[1-9]"
        " chapter_2[12]",
    ),
}
CHILD = """
import faulthandler, json, os, sys
import pytest
from mutmut.mutation.trampoline import set_mutant_under_test
set_mutant_under_test("")
place = {}
class Only:
    def pytest_collection_modifyitems(self, items):
        items[:] = sorted((x for x in items if x.nodeid in place), key=lambda x: place[x.nodeid])
options = ["-x", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "--no-header", "--tb=no"]
files = json.loads(sys.argv[1])
with open(os.devnull, "w") as quiet:
    out, sys.stdout = sys.stdout, quiet
    pytest.main([*options, "--collect-only", *files])  # imports everything once
    sys.stdout = out
print("ready", flush=True)
for line in sys.stdin:
    mutant, tests, limit = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        import resource
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        set_mutant_under_test(mutant)
        place = {test: k for k, test in enumerate(tests)}
        for name in [m for m in sys.modules if m.startswith("test_")]:
            del sys.modules[name]  # what a module computes as it is imported is computed anew
        os._exit(int(pytest.main([*options, *sorted({t.split("::")[0] for t in tests})], [Only()])))
    _, status = os.waitpid(pid, 0)
    print(json.dumps(os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1), flush=True)
"""


def test_files(words: str) -> list[str]:
    """The files of a room's unit tests."""
    found = {p for word in words.split() for p in (ROOT / "tests").glob(f"test_{word}.py")}
    return sorted(f"tests/{path.name}" for path in found)


def imported(path: Path) -> set[str]:
    """All that a file imports, with dots: modules, and what is taken from them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def chosen(room: str, modules: Sequence[str], tests: Sequence[str]) -> tuple[list[str], list[str]]:
    """(what is mutated, the test files) of a room, or of some of its modules."""
    pattern, words = ROOMS[room]
    files = test_files(" ".join(tests) or words)
    if not modules:
        return [pattern], files
    paths = [str(Path(pattern).with_name(f"{name}.py")) for name in modules]
    if missing := [path for path in paths if not (ROOT / path).is_file()]:
        raise SystemExit(f"no module of {room}: {', '.join(missing)}")
    names = {path[: -len(".py")].replace("/", ".") for path in paths}
    if not tests:
        files = [file for file in files if imported(ROOT / file) & names]
    return paths, files


def prepare(
    mutated: Sequence[str], files: Sequence[str], folder: Path
) -> dict[str, dict[str, float]]:
    """Write mutants of some files into a copy of the tree; the tests that reach each, the fast
    first, with their seconds."""
    tracked = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
    for name in filter(None, tracked.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    others = ["irlbook", *(p.name for p in folder.iterdir() if p.name not in ("tests", "irlbook"))]
    settings = {
        "source_paths": ["irlbook"],
        "only_mutate": list(mutated),
        "also_copy": others,
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-o", "addopts="],
        "pytest_add_cli_args_test_selection": list(files),
    }
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write("\n[tool.mutmut]\n")
        file.writelines(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    # A name that no mutant has: mutmut writes the mutants, looks which tests reach them, and stops.
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", "run", "--max-children", "1", "no.such.mutant"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if "nothing matches" not in done.stderr + done.stdout:
        raise SystemExit(f"mutmut stopped: {(done.stdout + done.stderr)[-2000:]}")
    reached = json.loads((folder / "mutants" / "mutmut-stats.json").read_text(encoding="utf-8"))
    tests, seconds = reached["tests_by_mangled_function_name"], reached["duration_by_test"]
    mutants: dict[str, dict[str, float]] = {}
    for meta in sorted((folder / "mutants" / "irlbook").rglob("*.py.meta")):
        for name in json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]:
            found = tests.get(name.partition("__mutmut_")[0], ())
            timed = sorted((seconds.get(test, 0.0), test) for test in found)
            mutants[name] = {test: cost for cost, test in timed}
    return mutants


def run(
    mutants: Mapping[str, Mapping[str, float]], names: Sequence[str], folder: Path, limit: int
) -> Iterator[tuple[str, str]]:
    """Whether each mutant is killed: "killed", "survived", "too slow" or "no test reaches it".

    Too slow is what takes `limit` seconds more than twice the time of its tests without a mutant.
    """
    files = sorted({t.split("::")[0] for name in names for t in mutants[name]})
    # Set before the interpreter starts: an empty name is "no mutant", none at all is an error.
    env = {**os.environ, "MUTANT_UNDER_TEST": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, json.dumps(files)]
    with subprocess.Popen(
        command,
        cwd=folder / "mutants",
        env=env,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        if server.stdout.readline() != "ready\n":
            raise SystemExit("the tests could not be collected")

        def asked(name: str, tests: Sequence[str], seconds: int) -> int:
            server.stdin.write(json.dumps([name, tests, seconds]) + "\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())

        every = sorted({test for name in names for test in mutants[name]})
        if asked("", every, 3600):
            raise SystemExit("a test fails without any mutant")
        for name in names:
            if mutants[name]:
                allowed = limit + 2 * int(sum(mutants[name].values()))
                code = asked(name, list(mutants[name]), allowed)
                # pytest ends with 5 where it found none of the tests
                fates = {0: "survived", -1: "too slow", 5: "no test reaches it"}
                yield name, fates.get(code, "killed")
            else:
                yield name, "no test reaches it"
        server.stdin.close()


def difference(name: str, folder: Path) -> list[str]:
    """The lines that a mutant changes, with - and +."""
    shown = subprocess.run(
        [sys.executable, "-m", "mutmut", "show", name], cwd=folder, capture_output=True, text=True
    )
    lines = shown.stdout.splitlines()
    return [x for x in lines if x[:1] in "+-" and x[:3] not in ("+++", "---")]


def kind_of(lines: Sequence[str]) -> str:
    """What a mutant changes: "text", "default", "number" or "code"; the last are looked at first.

    A text has XX around it, or another case. A default is a parameter's. A number in the code is
    often a setting of a solver, which may be another and still find the same.
    """
    before, after = ("".join(x[1:] for x in lines if x[0] == sign) for sign in "-+")
    if before.replace("XX", "").lower() == after.replace("XX", "").lower() and before != after:
        return "text"
    if re.match(r"(def .*|\s+)\w+: [^=(]+ = ", before):
        return "default"
    number = re.compile(r"\b\d[\d_]*(\.\d*)?(e-?\d+)?\b")
    return "number" if number.sub("#", before) == number.sub("#", after) else "code"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rooms", nargs="*", default=list(ROOMS), help=" ".join(ROOMS))
    parser.add_argument("--n", type=int, default=100, help="mutants of each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--limit", type=int, default=60, help="CPU seconds of one mutant, beyond its tests"
    )
    parser.add_argument("--modules", nargs="+", default=[], help="of one room, these alone")
    parser.add_argument(
        "--tests", nargs="+", default=[], help="test files by name, without test_ and .py"
    )
    parser.add_argument(
        "--longest", type=float, default=float("inf"), help="seconds; a longer test is left out"
    )
    given = parser.parse_args()
    if len(given.rooms) != 1 and (given.modules or given.tests):
        parser.error("--modules and --tests belong to one room")
    table = []
    for room in given.rooms:
        with tempfile.TemporaryDirectory() as place:
            folder, started = Path(place), time.time()
            mutated, files = chosen(room, given.modules, given.tests)
            print(f"{room}: {', '.join(mutated)} by {', '.join(files)}", flush=True)
            mutants = {
                name: {test: cost for test, cost in tests.items() if cost <= given.longest}
                for name, tests in prepare(mutated, files, folder).items()
            }
            names = random.Random(given.seed).sample(sorted(mutants), min(given.n, len(mutants)))
            counts: Counter[str] = Counter()
            kinds: Counter[str] = Counter()
            for k, (name, fate) in enumerate(run(mutants, names, folder, given.limit), start=1):
                counts[fate] += 1
                print(f"\r{room}: {k} of {len(names)} {dict(counts)}", end="", file=sys.stderr)
                if fate not in ("killed", "too slow"):
                    lines = difference(name, folder)
                    kinds[kind_of(lines)] += 1
                    print(f"\n{name}: {fate}, {kind_of(lines)}", *lines, sep="\n  ", flush=True)
            print(file=sys.stderr)
        killed = counts["killed"] + counts["too slow"]
        table.append(
            f"{room}: {killed} of {len(names)} killed ({killed / len(names):.0%}), "
            f"{counts['too slow']} of them by time; {counts['no test reaches it']} reached by no "
            f"test; without texts {killed / max(1, len(names) - kinds['text']):.0%}; "
            f"survivors {dict(kinds)}; "
            f"{len(mutants)} mutants in all, {time.time() - started:.0f} s"
        )
        print(table[-1], flush=True)
    print(*table, sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
