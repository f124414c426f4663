"""On-policy distillation: the student writes, the teacher says at each token what it would do.

It is DAgger for language models. SFT trains on prefixes that the teacher wrote; here the prefixes
are the student's own, so that what the teacher does *after a mistake of the student* is learned,
too. The loss at each token is a divergence between two next-token distributions,

    forward  KL(teacher || student),    reverse  KL(student || teacher),

summed over the response. Prefixes are data: no gradient goes through their sampling.

Sources: Ross et al. 2011 (DAgger); Agarwal et al. 2024 (2306.13649), whose GKD has both directions
and a mixture of the two.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor
from torch.special import entr

from irlbook.errors import (
    InfiniteDivergenceError,
    InvalidHyperparameterError,
    NotStochasticError,
    ShapeError,
)
from irlbook.lm.logprobs import log_softmax

__all__ = ["distil_table", "distillation_loss"]


def distillation_loss(
    student_logits: Tensor,
    teacher_probabilities: Tensor,
    direction: Literal["forward", "reverse"] = "forward",
) -> Tensor:
    """(N,) divergence of the next-token distributions at each place, in nats.

    Args:
        student_logits: (N, V). teacher_probabilities: (N, V), rows that sum to 1.
        direction: `forward` asks the student for everything that the teacher may do; `reverse`
            forbids what the teacher never does.

    Raises:
        ShapeError: unlike shapes.
        InfiniteDivergenceError: `reverse` with a token that the teacher never writes: a softmax
            student always may.
        InvalidHyperparameterError: another direction.
    """
    if student_logits.shape != teacher_probabilities.shape or student_logits.ndim != 2:
        raise ShapeError(
            f"student {tuple(student_logits.shape)} and teacher "
            f"{tuple(teacher_probabilities.shape)} must both be (tokens, vocabulary)."
        )
    logps = log_softmax(student_logits)
    teacher = teacher_probabilities.to(logps)
    if direction == "forward":
        return -(teacher * logps).sum(1) - entr(teacher).sum(1)
    if direction != "reverse":
        raise InvalidHyperparameterError(f"direction is {direction!r}; use forward or reverse.")
    if not (teacher > 0).all():
        raise InfiniteDivergenceError(
            "the teacher gives some token probability 0, so the reverse KL of a softmax student is "
            "infinite. Use the forward direction, or smooth the teacher."
        )
    return (logps.exp() * (logps - teacher.log())).sum(1)


def distil_table(
    states: np.ndarray, teacher: np.ndarray, n_states: int, smoothing: float = 0.0
) -> np.ndarray:
    """(n_states, V) the student of least forward loss, if it has a row of its own for each state.

    A row is the mean of the teacher's distributions at the visits to its state: the loss is convex
    in the row, and its gradient is zero there. Which states are visited is all that the source of
    the texts decides. A state that was never visited keeps a uniform row.

    Args:
        states: (N,) the state before each token. teacher: (N, V) what the teacher does there.
        smoothing: uniform visits that are added to each state.

    Raises:
        ShapeError, NotStochasticError, InvalidHyperparameterError.
    """
    states, teacher = np.asarray(states), np.asarray(teacher, dtype=float)
    if teacher.ndim != 2 or states.shape != teacher.shape[:1]:
        raise ShapeError(f"states {states.shape} and teacher {teacher.shape}: (N,) and (N, V).")
    if len(states) and not (0 <= states.min() and states.max() < n_states):
        raise ShapeError(f"a state is not among the {n_states}.")
    if not ((teacher >= 0).all() and np.allclose(teacher.sum(1), 1.0, atol=1e-6)):
        raise NotStochasticError("a row of the teacher is no distribution over tokens.")
    if not smoothing >= 0:
        raise InvalidHyperparameterError(f"smoothing is {smoothing}; a count is not negative.")
    size = teacher.shape[1]
    rows = np.full((n_states, size), smoothing / size)
    np.add.at(rows, states, teacher)
    total = rows.sum(1, keepdims=True)
    return np.where(total > 0, rows / np.where(total > 0, total, 1.0), 1 / size)
