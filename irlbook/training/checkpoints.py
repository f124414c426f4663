"""What a run leaves on disk: checkpoints that are whole or absent, metrics, the reference.

    out/metrics.csv              a row a step
    out/reference.safetensors    log-probabilities of the reference, computed once
    out/checkpoints/step-000200  weights, moments, state.json; written aside, then renamed. The last
                                 says also how many processes made the step: a launcher that starts
                                 too few changes no loss

Everything that is random in a run follows from (seed, step). So a checkpoint needs to hold no more
than weights, the optimiser's moments and a step number, and no pickle.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from irlbook.data.files import umask
from irlbook.errors import CheckpointError, ResumeMismatchError
from irlbook.lm.trees import Group
from irlbook.training.distributed import split_like, whole
from irlbook.training.metrics_file import read_metrics

__all__ = [
    "Metrics",
    "Run",
    "data_digest",
    "fingerprint",
    "going_on",
    "nothing_trained",
    "write_whole",
]


class Run:
    """The run's folder: checkpoints that are whole or absent, and the reference."""

    def __init__(
        self,
        folder: Path | str | None,
        fingerprint: dict[str, Any],
        accelerator: Any,
        scorer: nn.Module,
        optimizer: Any,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.fingerprint, self.accelerator = fingerprint, accelerator
        self.named = [(name, p) for name, p in scorer.named_parameters() if p.requires_grad]
        self.state = optimizer.state
        self.fused = accelerator.device.type == "cuda"

    def open(self, resume: bool) -> int:
        """Load the last checkpoint, if there is one; the number of steps that are done."""
        if self.folder is None:
            return 0
        if self.accelerator.is_main_process:
            with _writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            for left in (self.folder / "checkpoints").glob(".step-*"):
                shutil.rmtree(left, ignore_errors=True)  # a save that was killed
            if not resume:
                shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
                (self.folder / "metrics.csv").unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        last = self.latest()
        return 0 if last is None else self.load(last)

    def latest(self) -> Path | None:
        """The newest whole checkpoint."""
        if self.folder is None:
            return None
        return max((self.folder / "checkpoints").glob("step-*"), default=None)

    def reference(self, given: Tensor | None, compute: Callable[[], Tensor]) -> Tensor:
        """The reference's log-probabilities: given, or kept by this run, or computed now."""
        if given is not None:
            return given.detach().cpu()
        if self.folder is None:
            return compute()
        path = self.folder / "reference.safetensors"
        if self.latest() is None:
            found = compute()
            if self.accelerator.is_main_process:
                write_whole(path, lambda to: save_file({"logps": found.contiguous()}, to))
            return found
        try:
            return load_file(path)["logps"]
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(
                f"{path} is missing or broken, and the policy has moved on from the reference, so "
                "it cannot be computed again. Start over with resume=False (--restart)."
            ) from error

    def save(self, step: int, keep: int) -> None:
        """Write a checkpoint beside the others, then name it; drop those beyond `keep`."""
        if self.folder is None:
            return
        weights = {name: whole(p) for name, p in self.named}
        moments = {
            f"{key}:{name}": whole(self.state[p][key])
            for name, p in self.named
            for key in ("exp_avg", "exp_avg_sq")
            if p in self.state
        }
        if self.accelerator.is_main_process:
            final = self.folder / "checkpoints" / f"step-{step:08d}"
            aside = final.with_name(f".{final.name}")
            try:
                aside.mkdir(parents=True)
                save_file(weights, aside / "weights.safetensors")
                save_file(moments, aside / "moments.safetensors")
                state = {"step": step, "updates": self._updates(), **self.fingerprint}
                state["processes"] = self.accelerator.num_processes  # to be read, not compared
                (aside / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
                for path in aside.iterdir():
                    path.chmod(0o666 & ~umask())
                    with open(path, "rb+") as file:
                        os.fsync(file.fileno())
                os.rename(aside, final)
            except (OSError, SafetensorError) as error:
                shutil.rmtree(aside, ignore_errors=True)
                raise CheckpointError(
                    f"checkpoint {final} could not be written: {error}. Earlier checkpoints and "
                    "the metrics are whole: make room, then run the same again to go on from them."
                ) from error
            for old in sorted(final.parent.glob("step-*"))[:-keep]:
                shutil.rmtree(old, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _updates(self) -> int:
        """How often the optimiser has moved the weights; not once a step in every method."""
        return max(
            (int(self.state[p]["step"]) for _, p in self.named if p in self.state), default=0
        )

    def load(self, folder: Path) -> int:
        """Put a checkpoint's weights and moments in place; the number of steps that are done."""
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            step = state.pop("step")
            updates = state.pop("updates", step)
            _check_same(folder, state, self.fingerprint)
            weights = load_file(folder / "weights.safetensors")
            moments = load_file(folder / "moments.safetensors")
            for name, p in self.named:
                p.data.copy_(split_like(weights.pop(name), p))
                if not updates:
                    continue
                self.state[p] = {
                    "step": torch.tensor(float(updates), device=p.device if self.fused else "cpu"),
                    "exp_avg": split_like(moments[f"exp_avg:{name}"], p),
                    "exp_avg_sq": split_like(moments[f"exp_avg_sq:{name}"], p),
                }
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            if isinstance(error, ResumeMismatchError | CheckpointError):
                raise
            raise CheckpointError(
                f"checkpoint {folder} cannot be read: {error}. Remove this folder to go on from "
                "the one before it."
            ) from error
        return step


class Metrics:
    """metrics.csv, a row a step, and TensorBoard's events. A kill costs one row at most."""

    def __init__(self, folder: Path | None, first: int, tensorboard: bool) -> None:
        """
        Args:
            folder: None keeps nothing.
            first: steps that are done; rows after them are of a run that was killed, and go.
        """
        self.path = None if folder is None else folder / "metrics.csv"
        self.kept: list[dict[str, float]] = []
        self.columns: list[str] = []
        self.board = None
        if self.path is None:
            return
        if self.path.exists() and first:
            self.kept = [row for row in read_metrics(self.path) if row["step"] <= first]
        self._rewrite(self.kept)
        if tensorboard and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder), purge_step=first + 1)

    def write(self, row: dict[str, float]) -> None:
        """Append a row in one write; a new column rewrites the file."""
        if self.path is None:
            return
        if set(row) - set(self.columns):
            self._rewrite([*read_metrics(self.path), row])
        else:
            with _writing(self.path), open(self.path, "a", encoding="utf-8", newline="") as file:
                file.write(self._text([row]))
        if self.board is not None:
            for name, value in row.items():
                if name != "step":
                    self.board.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        if self.board is not None:
            self.board.close()

    def _rewrite(self, rows: list[dict[str, float]]) -> None:
        self.columns = list(dict.fromkeys(name for row in rows for name in row)) or ["step"]
        text = ",".join(self.columns) + "\n" + self._text(rows)
        if self.path is not None:
            write_whole(self.path, lambda to: to.write_text(text, encoding="utf-8"))

    def _text(self, rows: list[dict[str, float]]) -> str:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns, restval="", lineterminator="\n")
        writer.writerows(rows)
        return buffer.getvalue()


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a file beside `path`, then put it in its place: all or nothing."""
    aside = path.with_name(f".{path.name}.new")
    try:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(aside)
            aside.chmod(0o666 & ~umask())  # safetensors makes its files private
            os.replace(aside, path)
    except CheckpointError:
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} could not be written: {error}. Make room, or give a place that can be written."
        ) from error


def fingerprint(
    scorer: nn.Module,
    groups: Sequence[Group],
    objective: str,
    settings: Mapping[str, Any],
    extra: Mapping[str, Tensor],
) -> dict[str, Any]:
    """What two runs must share for one to go on with the other's checkpoint: by content.

    Args:
        objective: its name, with all its hyper-parameters.
        settings: those of the training that change its numbers.
    """
    start = hashlib.sha256()
    for name, p in scorer.named_parameters():
        start.update(f"{name} {p.dtype} {tuple(p.shape)}".encode())
        start.update(p.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return {
        "objective": objective,
        "data": data_digest(groups, extra),
        "start": start.hexdigest()[:16],
        "config": json.loads(json.dumps(settings)),
    }


def data_digest(groups: Sequence[Group], extra: Mapping[str, Tensor]) -> str:
    """A hash of examples and of the numbers that go with them, whatever file they came from."""
    digest = hashlib.sha256()
    for prompt, answers in groups:
        for ids in (prompt, *answers):
            digest.update(np.asarray([len(ids), *ids], dtype=np.int64).tobytes())
    for name in sorted(extra):
        digest.update(name.encode() + extra[name].detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()[:16]


def going_on(done: int, of: int, what: str) -> None:
    """Say on stderr that an unfinished run was found, and from where it goes on."""
    tqdm.write(f"going on from {what} {done} of {of}", file=sys.stderr)


def nothing_trained(out: Path | str, done: str) -> str:
    """What to say of a finished run that is asked for again."""
    return (
        f"nothing was trained: {out} holds this run already, finished ({done}). Start over with "
        "resume=False (--restart), or give another folder."
    )


def _check_same(folder: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    differ = [
        f"{name} was {theirs['config'].get(name)!r} and is {value!r}"
        for name, value in ours["config"].items()
        if theirs["config"].get(name) != value
    ]
    if theirs["objective"] != ours["objective"]:
        differ.append(_other_objective(theirs["objective"], ours["objective"]))
    if theirs["data"] != ours["data"]:
        differ.append("the examples are others")
    if theirs["start"] != ours["start"]:
        differ.append("it started from another model")
    if differ:
        raise ResumeMismatchError(
            f"{folder.parent.parent} holds another run: {'; '.join(differ)}. Give another folder, "
            "or start over with resume=False (--restart), which replaces it."
        )


def _other_objective(theirs: str, ours: str) -> str:
    """Only the fields that differ, where both are the same loss: `DPO(beta=0.1, ...)`."""
    its, mine = (dict(re.findall(r"(\w+)=([^,()]+)", name)) for name in (theirs, ours))
    same_kind = theirs.partition("(")[0] == ours.partition("(")[0] and its.keys() == mine.keys()
    fields = [f"{k} was {its[k]} and is {mine[k]}" for k in mine if same_kind and its[k] != mine[k]]
    return "; ".join(fields) or f"objective was {theirs} and is {ours}"
