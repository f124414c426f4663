"""Hindsight instruction relabelling: a wrong answer is a right answer to another instruction.

A model is asked for one of K kinds of response and writes one. If it is not of the kind asked for,
the pair (instruction, response) is wrong; but the response *is* of some kind, and the pair of that
instruction and the response is right. So every sample becomes a demonstration, and the model is
fitted to them as in SFT. Filtering keeps only the samples that are right as they stand.

Here the model is a table over all responses, one row for each instruction, so that success is a sum
and nothing generalises from one instruction to another.

Source: Zhang et al. 2023 (2302.05206), "The wisdom of hindsight".
"""

from __future__ import annotations

import numpy as np

from irlbook.errors import InvalidHyperparameterError, ShapeError
from irlbook.lm.enumerable import check_logps

__all__ = ["instruction_rounds", "relabelled_policy", "success"]


def success(policies: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """(K,) the chance that a response to instruction k is of kind k.

    Args:
        policies: (K, R) probabilities. kinds: (R,) in 0 .. K - 1.
    """
    own = np.arange(len(policies))[:, None] == kinds[None, :]
    return (policies * own).sum(axis=1)


def relabelled_policy(policies: np.ndarray, kinds: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(K, R) the fit to endless relabelled samples, eq 21.12.

        pi'(y | k) = m(y) 1[kind(y) = k] / m(kind k),   m(y) = sum_k asked_k pi(y | k).

    An instruction whose kind is never written keeps its row.

    Args:
        policies: (K, R) probabilities. kinds: (R,). asked: (K,) how often each is asked.
    """
    written = np.asarray(asked) @ policies
    mass = np.bincount(kinds, weights=written, minlength=len(policies))
    fitted = policies.copy()
    for k in np.flatnonzero(mass > 0):
        fitted[k] = np.where(kinds == k, written, 0.0) / mass[k]
    return fitted


def instruction_rounds(
    log_reference: np.ndarray,
    kinds: np.ndarray,
    *,
    rounds: int,
    samples: int,
    relabel: bool,
    rng: np.random.Generator,
    strength: float = 10.0,
) -> np.ndarray:
    """(rounds + 1, K) exact success while a table is fitted to its own samples.

    Each round asks `samples` random instructions. With `relabel` each response is kept under the
    instruction that it fulfils, else only if it fulfils the one that was asked. Row k is the
    reference, counted for `strength` samples, mixed with all samples that were kept for k.

    Args:
        log_reference: (R,) what the model writes at first, whatever it is asked.
        kinds: (R,) in 0 .. K - 1.

    Raises:
        ShapeError: another number of kinds than of responses.
        InvalidHyperparameterError: rounds, samples or strength that are not positive.
    """
    log_reference = check_logps(log_reference, "log_reference")
    kinds = np.asarray(kinds)
    if kinds.shape != log_reference.shape:
        raise ShapeError(f"{kinds.shape} kinds of {log_reference.shape} responses.")
    if min(rounds, samples) < 1 or not strength > 0:
        raise InvalidHyperparameterError(
            f"rounds={rounds}, samples={samples}, strength={strength} must be positive."
        )
    reference, n_kinds = np.exp(log_reference), int(kinds.max()) + 1
    reference = reference / reference.sum()
    counts = np.zeros((n_kinds, len(kinds)))
    found = []
    for _ in range(rounds + 1):
        policies = strength * reference + counts
        policies /= policies.sum(axis=1, keepdims=True)
        found.append(success(policies, kinds))
        asked = rng.multinomial(samples, np.full(n_kinds, 1 / n_kinds))
        for k, n in enumerate(asked):
            drawn = rng.choice(len(kinds), size=n, p=policies[k])
            kept = drawn if relabel else drawn[kinds[drawn] == k]
            np.add.at(counts, (kinds[kept], kept), 1.0)
    return np.array(found)
