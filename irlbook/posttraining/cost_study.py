"""Measured beside `irlbook.lm.costs`: memory and time of a training step, model by model.

    python -m irlbook.posttraining.cost_study --out irlbook/results/costs.json

measures `CASES`, on which the counts were settled, and `SAVINGS`, whose counts were written before
they were measured; `--part savings` measures the second again and leaves the first. The versions
of Python and PyTorch are kept for each part.

Each case runs in a process of its own, on one CPU thread in float32, with random weights: a step
costs the same whatever they are. Measured are

* `allocated`: the weights, the moments, and the most that tensors held above these in one step, by
  the events of PyTorch's profiler;
* `resident`: the most memory that the process had above what the libraries take (Linux only). An
  allocator keeps freed pieces, so this is more;
* `cpu_seconds`: of the quickest of three steps.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from irlbook.errors import CheckpointError, as_command
from irlbook.lm import costs, models
from irlbook.lm.logprobs import token_logps
from irlbook.lm.trees import collate
from irlbook.posttraining.stored_runs import read_stored
from irlbook.training.checkpoints import write_whole

__all__ = [
    "CASES",
    "PARTS",
    "PRECISIONS",
    "SAVINGS",
    "checkpoint_layers",
    "main",
    "measure_case",
    "resident_peak",
]

_XS = {"hidden": 128, "layers": 3, "heads": 4, "vocabulary": 1024, "tied": False}
CASES: dict[str, dict[str, Any]] = {
    "0.9 M": _XS | {"rows": 16, "prompt": 40, "response": 40},
    "0.9 M, four times the rows": _XS | {"rows": 64, "prompt": 40, "response": 40},
    "0.9 M, long prompts": _XS | {"rows": 8, "prompt": 200, "response": 24},
    "9 M, 32,768 words": _XS | {"vocabulary": 32_768, "rows": 16, "prompt": 40, "response": 40},
    "5 M": {"hidden": 256, "layers": 4, "heads": 4, "vocabulary": 4096, "tied": False}
    | {"rows": 16, "prompt": 64, "response": 64},
    "6 M, 8 heads share 2": {"hidden": 256, "layers": 8, "heads": 8, "kv_heads": 2, "tied": True}
    | {"vocabulary": 1024, "rows": 8, "prompt": 64, "response": 64},
    "5 M, LoRA of rank 8": {"hidden": 256, "layers": 4, "heads": 4, "vocabulary": 4096}
    | {"tied": False, "rank": 8, "rows": 16, "prompt": 64, "response": 64},
    "134 M, SmolLM2's sizes": {"hidden": 576, "layers": 30, "heads": 9, "kv_heads": 3, "tied": True}
    | {"vocabulary": 49_152, "intermediate": 1536, "rows": 4, "prompt": 32, "response": 32},
}
"""Sizes of a model, and of a batch of rows of one prompt and one response each."""

_BOOK: dict[str, Any] = {"vocabulary": 531, "hidden": 96, "layers": 2, "heads": 4, "tied": True}
_BOOK |= {"rows": 64, "prompt": 11, "response": 19}
_WIDE: dict[str, Any] = {"vocabulary": 1024, "hidden": 512, "layers": 8, "heads": 8, "tied": False}
_WIDE |= {"rows": 16, "prompt": 32, "response": 32}
_SAVED_BY: dict[str, dict[str, Any]] = {
    "all weights": {},
    "LoRA 8": {"rank": 8},
    "kept": {"checkpointing": False},
    "checkpointed": {"checkpointing": True},
    "bfloat16": {"precision": "bfloat16"},
}
SAVINGS: dict[str, dict[str, Any]] = {
    f"{size}, {way}": sizes | options
    for size, sizes in {"book": _BOOK, "wide": _WIDE}.items()
    for way, options in _SAVED_BY.items()
}
"""What saves memory, on the sizes of the book's own model and on a wider one with random weights.

The rows of the first are as long as those of chapter 22's comparison of LoRA with full tuning."""

PRECISIONS = {
    "float32": costs.Precision(),
    "bfloat16": costs.Precision(weight=2, gradient=2, optimiser=4, activation=2),
}
"""Bytes per number of a model whose weights and moments all have this precision. Logits are made
float32 before the loss."""


def measure_case(
    *,
    vocabulary: int,
    rows: int,
    prompt: int,
    response: int,
    rank: int | None = None,
    intermediate: int | None = None,
    checkpointing: bool | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    **sizes: Any,
) -> dict[str, float]:
    """What one case costs here, with what the arithmetic says beside it.

    Args:
        rank: of an adapter; None trains all weights.
        checkpointing: of layers. They are computed in padded rows then, and False does so, too, for
            a comparison; None leaves the choice of rows to `irlbook.lm.logprobs`.
        precision: of weights, moments and computation.
        sizes: as `irlbook.lm.models.tiny_lm` takes them.
    """
    torch.set_num_threads(1)
    warm = models.tiny_lm(64, hidden=32)
    token_logps(warm, collate([([1, 2], [[3, 4]])], 0)).sum().backward()
    torch.optim.AdamW(warm.parameters()).step()
    before = resident_peak(reset=True)
    model: Any = models.tiny_lm(vocabulary, context=1024, **sizes)
    if intermediate:
        model.config.intermediate_size = intermediate
        model = type(model)(model.config)
    model.to(getattr(torch, precision))
    if checkpointing is not None:
        checkpoint_layers(model)
    sized = costs.Architecture.of(model.config)
    if rank:
        model = models.add_lora(model, rank=rank)
    model.train(bool(checkpointing))  # in evaluation checkpointed layers keep everything
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained)
    groups = [([1] * prompt, [[2] * response])] * rows

    def step() -> float:
        began = time.process_time()
        (-token_logps(model, collate(groups, 0)).mean()).backward()
        optimiser.step()
        optimiser.zero_grad()
        return time.process_time() - began

    seconds = min(step() for _ in range(3))
    resident = resident_peak() - before
    moments = [v for state in optimiser.state.values() for v in state.values()]
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *moments))
    again = bool(checkpointing)
    said = costs.training_memory(
        sized,
        rows * (prompt + response),
        rows * response,
        PRECISIONS[precision],
        rank=rank,
        checkpointing=again,
    )
    lengths = [(prompt, [response])] * rows
    work = costs.training_flops(sized, lengths, rank=rank, checkpointing=again)
    return {
        "allocated": held + _highest(step),
        "resident": resident,
        "cpu_seconds": seconds,
        "said": said.peak,
        "flops": work,
        "parameters": sized.parameters,
    }


def checkpoint_layers(model: Any) -> None:
    """Ask for checkpoints, by the name that this version of transformers has for it."""
    newer = getattr(model, "activation_checkpointing_enable", None)
    (newer or model.gradient_checkpointing_enable)()


def _highest(step: Any) -> int:
    """The most bytes that tensors held during a call, above those before it."""
    from torch.profiler import ProfilerActivity, profile

    with _silence(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@contextmanager
def _silence() -> Iterator[None]:
    """The profiler says on stderr that it starts and stops, in C++, whatever the log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def resident_peak(*, reset: bool = False) -> float:
    """The most bytes that this process has had in memory, since the last reset; NaN off Linux."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(x.split()[1] for x in lines if x.startswith("VmHWM"))) * 1024
    except (OSError, StopIteration):
        return float("nan")


PARTS = {"cases": CASES, "savings": SAVINGS}


def main(
    arguments: list[str] | None = None,
    parts: Mapping[str, Mapping[str, dict[str, Any]]] = PARTS,
) -> int:
    """Measure every case and write them as one file: "made_with" and the cases, by part.

    Raises:
        CheckpointError: a case failed.
        DataNotFoundError: one part is asked for, and there is no file that has the others.
    """
    by_name = {name: case for part in parts.values() for name, case in part.items()}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="the file to write")
    parser.add_argument("--part", choices=parts, help="measure this alone and keep the others")
    parser.add_argument("--case", choices=by_name, help="print one, measured in this process")
    told = parser.parse_args(arguments)
    if told.case:
        print(json.dumps(measure_case(**by_name[told.case])))
        return 0
    if told.out is None:
        parser.error("give --out FILE")
    again = "python -m irlbook.posttraining.cost_study without --part"
    whole: dict[str, Any] = read_stored(told.out, again) if told.part else {"made_with": {}}
    versions = {"python": platform.python_version(), "torch": version("torch")}
    for part in [told.part] if told.part else parts:
        whole[part] = {name: _in_its_own_process(name) for name in parts[part]}
        whole["made_with"][part] = versions
    write_whole(
        told.out,
        partial(Path.write_text, data=json.dumps(whole, indent=1) + "\n", encoding="utf-8"),
    )
    return 0


def _in_its_own_process(case: str) -> dict[str, float]:
    """A case, measured by a fresh interpreter."""
    command = [sys.executable, "-m", "irlbook.posttraining.cost_study", "--case", case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckpointError(f"the case {case!r} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    print(case, {k: f"{v:.4g}" for k, v in found.items()}, flush=True)
    return {k: float(f"{v:.6g}") for k, v in found.items()}


if __name__ == "__main__":
    raise SystemExit(as_command(main))
