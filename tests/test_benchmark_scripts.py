"""The benchmark that is made for a machine with a GPU runs on one without, on a tiny model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """bench_gpu.py on the CPU in a process of its own; it sets threads for the whole process."""
    command = [sys.executable, BENCHMARKS / "bench_gpu.py", "--device", "cpu", *arguments]
    path = os.pathsep.join([str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path}
    )


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not part of the wheel")
def test_every_kind_of_the_gpu_benchmark_runs_and_nothing_is_kept_from_a_cpu():
    before = {path: path.stat().st_mtime_ns for path in (BENCHMARKS / "results").iterdir()}
    size = ("--steps", "2", "--batch", "2", "--precision", "float32")
    done = run("tiny", *size)
    assert done.returncode == 0, done.stderr
    for kind in ("dpo", "reward", "grpo", "rollouts"):
        (row,) = [line for line in done.stdout.split(f"tiny {kind}")[1].splitlines()[2:3]]
        side, *numbers = row.split()
        assert side == "ours" and all(float(x) > 0 for x in numbers) and len(numbers) == 3
    assert "CPU, float32" in done.stdout.splitlines()[0]
    after = {path: path.stat().st_mtime_ns for path in (BENCHMARKS / "results").iterdir()}
    assert after == before
    one = run("tiny", "smollm2-360m", "--kinds", "dpo", "--minutes", "0", *size)
    assert "left out after 0 minutes: tiny dpo, smollm2-360m dpo" in one.stdout
    assert "tiny reward" not in one.stdout
