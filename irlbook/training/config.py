"""What a run is told: the optimiser and the machine, and what a pass over data needs besides.

Quick to import: the command line makes its options of these classes, and their comments its help.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from irlbook.errors import InvalidHyperparameterError

__all__ = ["StepConfig", "TrainingConfig", "at_least"]


@dataclass(frozen=True)
class StepConfig:
    """The optimiser, and the run that it is part of; who samples its own data takes this alone."""

    learning_rate: float = 1e-3  # the learning rate of AdamW at its peak
    final_learning_rate: float = 0.0  # where the learning rate ends, as a share of its peak
    warmup: float = 0.05  # the share of the steps in which the learning rate climbs from 0
    weight_decay: float = 0.01  # AdamW's weight decay, on matrices only
    betas: tuple[float, float] = (0.9, 0.999)  # AdamW's memory of gradients and their squares
    max_grad_norm: float = 1.0  # a gradient longer than this is scaled down to it; inf scales none
    # down
    max_tokens: int = 8192  # how many padded tokens are held at once; lower it to save memory, the
    # results stay
    device: Literal["cpu", "cuda"] = "cpu"  # where it is computed; never chosen silently
    precision: Literal["float32", "bfloat16"] = "float32"  # the precision of the computation; the
    # weights stay as they are
    checkpoint_every: int = 200  # how many steps lie between checkpoints; the end of a run is
    # always kept
    keep: int = 2  # how many checkpoints stay on disk
    evaluate_every: int = 50  # how many steps lie between measurements on held-out data
    progress: bool = True  # show a bar on stderr, if that is a terminal
    tensorboard: bool = True  # write events for TensorBoard too, if it is installed
    shard: bool = False  # split weights and moments over the processes (FSDP2) instead of copying

    def __post_init__(self) -> None:
        at_least(self, 1, "max_tokens", "checkpoint_every", "keep", "evaluate_every")
        _positive(self, "learning_rate", "max_grad_norm")
        if not (0 <= self.warmup < 1 and 0 <= self.final_learning_rate <= 1):
            raise InvalidHyperparameterError(
                "warmup must lie in [0, 1) and final_learning_rate in [0, 1]: both are shares."
            )
        at_least(self, 0, "weight_decay")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InvalidHyperparameterError(f"betas is {self.betas}; two numbers in [0, 1).")
        if self.precision not in ("float32", "bfloat16"):
            raise InvalidHyperparameterError(
                f"precision is {self.precision!r}; use float32 or bfloat16."
            )

    def settings(self) -> dict[str, Any]:
        """What changes the numbers of a run: not memory, speed, and how often it reports."""
        free = {"max_tokens", "device", "checkpoint_every", "keep", "evaluate_every", "patience"}
        free |= {"progress", "tensorboard", "shard"}
        return {name: value for name, value in asdict(self).items() if name not in free}


@dataclass(frozen=True)
class TrainingConfig(StepConfig):
    """Hyper-parameters of a pass over data. Those of a loss live with the loss."""

    epochs: float = 1.0  # how many times the examples are passed over; a pass is a whole number of
    # steps
    steps: int | None = None  # how many optimiser steps are taken; where it is given, it replaces
    # epochs
    batch_size: int = 32  # how many examples a step has, over all micro-batches and processes
    bucket: int = 16  # how many batches are sorted by length together, then shuffled; 1 sorts
    # nothing
    share_prompts: int = 1  # how many examples of one prompt may share a row, which computes it
    # once
    dropout: bool = False  # keep the model's dropout; refused where there is a reference
    seed: int = 0  # decides the order of the examples, dropout and new weights
    patience: int = 25  # how many steps without movement pass before a warning that the loss is
    # flat

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "batch_size", "bucket", "share_prompts", "patience", "steps")
        _positive(self, "epochs")


def at_least(config: Any, least: float, *names: str) -> None:
    """Raise InvalidHyperparameterError unless these fields are None or at least so much."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= least:
            raise InvalidHyperparameterError(f"{name} is {value}; at least {least}.")


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise InvalidHyperparameterError(f"{name} is {getattr(config, name)}; above 0.")
