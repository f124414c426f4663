"""What every benchmark shares: the problems, the stopwatch, the table and the result file.

A comparison runs both sides in one process, in turns (`interleave`), after a warm-up, and reports
the median of the per-round ratios with its spread. What is compared is also checked: each
benchmark asserts that both sides computed the same thing. Memory is measured in a process of its
own (`in_subprocess`), because a peak cannot be taken back.
"""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

# One thread on both sides, set before numpy loads its linear algebra.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402
import scipy.sparse  # noqa: E402

RESULTS = Path(__file__).parent / "results"
N_ACTIONS = 5  # stay, up, down, left, right


# ---------------------------------------------------------------------------------- problems


def grid_transitions(side: int, slip: float = 0.2) -> scipy.sparse.csr_array:
    """A side × side gridworld: the chosen move, or with probability `slip` any of the five.

    Args:
        side: cells along one edge; there are side² states.
        slip: probability that a uniformly random move replaces the chosen one.
    Returns:
        (S·A, S) transition probabilities, row s·A + a, at most five entries a row.
    """
    row, column = np.divmod(np.arange(side * side, dtype=np.int32), side)
    steps = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
    successors = np.stack(
        [
            np.clip(row + dr, 0, side - 1) * side + np.clip(column + dc, 0, side - 1)
            for dr, dc in steps
        ],
        axis=1,
    ).astype(np.int32)  # (S, A)
    chosen_or_slipped = (1 - slip) * np.eye(N_ACTIONS) + slip / N_ACTIONS
    n_rows = side * side * N_ACTIONS
    transitions = scipy.sparse.csr_array(
        (
            np.tile(chosen_or_slipped.ravel(), side * side),
            np.repeat(successors, N_ACTIONS, axis=0).ravel(),
            np.arange(0, n_rows * N_ACTIONS + 1, N_ACTIONS, dtype=np.int32),
        ),
        shape=(n_rows, side * side),
    )
    transitions.sum_duplicates()  # at a wall two moves end in the same cell
    return transitions


def garnet_transitions(
    n_states: int, rng: np.random.Generator, branching: int = 5
) -> scipy.sparse.csr_array:
    """A random MDP: each state-action leads to `branching` random states with random odds."""
    n_rows = n_states * N_ACTIONS
    successors = np.stack(
        [rng.choice(n_states, size=branching, replace=False) for _ in range(n_rows)]
    )
    odds = rng.dirichlet(np.ones(branching), size=n_rows)
    return scipy.sparse.csr_array(
        (odds.ravel(), successors.ravel(), np.arange(0, n_rows * branching + 1, branching)),
        shape=(n_rows, n_states),
    )


def bump_features(side: int, n_features: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian bumps of width side/5 around random cells: (S, K), overlapping, in [0, 1]."""
    row, column = np.divmod(np.arange(side * side), side)
    centre_row, centre_column = rng.uniform(0, side, size=(2, n_features))
    squared = (row[:, None] - centre_row) ** 2 + (column[:, None] - centre_column) ** 2
    return np.exp(-squared / (2 * (side / 5) ** 2))


def patch_features(side: int, n_features: int, rng: np.random.Generator) -> np.ndarray:
    """Each cell belongs to one of K kinds at random, one-hot: (S, K), uncorrelated."""
    return np.eye(n_features)[rng.integers(n_features, size=side * side)]


FEATURES = {"bumps": bump_features, "patches": patch_features}


def goal_reward(side: int) -> np.ndarray:
    """(S,) 1 in the far corner, a half in the middle, a small price of −0.01 elsewhere."""
    reward = np.full(side * side, -0.01)
    reward[side // 2 * (side + 1)] = 0.5
    reward[-1] = 1.0
    return reward


def make_mdp(
    transitions: scipy.sparse.csr_array, reward: np.ndarray, discount: float, start: int | None = 0
):
    """The library's TabularMDP; `start` is a state, or None for the uniform distribution."""
    from irlbook.mdp import TabularMDP

    return TabularMDP.create(transitions, reward, start=start, discount=discount)


# --------------------------------------------------------------------------------- measuring


def interleave(
    sides: dict[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> dict[str, np.ndarray]:
    """Time every side once per round, in turns, so that a busy machine slows all of them.

    Returns:
        seconds per side, (rounds,) each; the rounds of different sides belong together.
    """
    for _ in range(warmup):
        for run in sides.values():
            run()
    seconds = {name: np.empty(rounds) for name in sides}
    for i in range(rounds):
        for name, run in sides.items():
            begin = time.perf_counter()
            run()
            seconds[name][i] = time.perf_counter() - begin
    return seconds


def spread(values: np.ndarray) -> dict[str, float]:
    """Median, quartiles and range of a sample."""
    low, q1, median, q3, high = np.percentile(values, [0, 25, 50, 75, 100])
    return {"median": median, "q1": q1, "q3": q3, "min": low, "max": high, "n": len(values)}


def show_seconds(seconds: float) -> str:
    """1.23 s, 4.56 ms, 7.89 µs."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def show_ratio(ratio: dict[str, float]) -> str:
    """Median with its quartiles: 41.2× (39.8–43.0)."""
    return f"{ratio['median']:.3g}× ({ratio['q1']:.3g}–{ratio['q3']:.3g})"


def table(headers: list[str], rows: list[list[object]]) -> None:
    """Print rows as an aligned table."""
    cells = [headers, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    for i, row in enumerate(cells):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
        if i == 0:
            print("  ".join("-" * width for width in widths))
    print(flush=True)


def peak_memory() -> int:
    """The largest resident set of this process so far, in bytes."""
    try:  # Linux: getrusage would carry over the parent's peak through fork and exec
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def in_subprocess(script: str, *arguments: object, timeout: float = 1200) -> dict:
    """Run a benchmark script in a process of its own; it prints one JSON object last."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


# ------------------------------------------------------------------------- peers and results


def peer(module: str, install: str) -> ModuleType | None:
    """Import an optional peer, or say in one line that its side is skipped and why."""
    try:
        return importlib.import_module(module)
    except Exception as problem:  # a peer may be missing, or installed against another version
        print(
            f"skipped: {module} ({type(problem).__name__}: {problem}); "
            f"benchmarks/README.md says how to install {install}",
            flush=True,
        )
        return None


def machine() -> dict[str, object]:
    """What a number depends on: cores, CPU model, versions."""
    cpu = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    packages = (
        "irlbook",
        "numpy",
        "scipy",
        "torch",
        "transformers",
        "accelerate",
        "trl",
        "imitation",
        "seals",
        "stable-baselines3",
        "quantecon",
        "numba",
        "econirl",
        "jax",
        "pymdptoolbox",
    )
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "system": platform.system(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": 1,
        "versions": versions,
    }


def save(name: str, results: dict[str, object]) -> None:
    """Write benchmarks/results/<name>.json with the date, the machine and the versions."""
    RESULTS.mkdir(exist_ok=True)
    record = {
        "benchmark": name,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "results": results,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1, default=float) + "\n")
    print(f"written: benchmarks/results/{path.name}", flush=True)
