"""Twisted sequential Monte Carlo: many prefixes at once, copied and dropped by what they promise.

The target is RLHF's optimum, sigma(y) = pi_ref(y) exp(r(y) / beta) / Z. A *twist* psi(s) > 0 says
how promising a prefix is; psi(y) = exp(r(y) / beta) on whole responses and 1 at the empty prefix.
n particles draw their next token from a proposal q and get the weight

    w = pi_ref(a | s) psi(s a) / (q(a | s) psi(s)),

then n of them are drawn again in proportion to the weights. A response that is over stays as it is.
The product over steps of the mean weights, Z^, is an *unbiased* estimate of Z for any twist and any
n, and so is the target's unnormalised probability: E[Z^ 1{output = y}] = Z sigma(y). The output
itself follows sigma only as n grows. With psi = exp(V / beta), V the soft value, and the proposal
that the twist implies all weights are equal: Z^ = Z always, and one particle is exact.

Source: Zhao, Brekelmans, Makhzani and Grosse 2024 (2404.17546); Del Moral 2004 for unbiasedness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irlbook.decoding.guided import guided_policy
from irlbook.decoding.prefix_scorers import check_scores
from irlbook.errors import InvalidHyperparameterError, InvalidPolicyError, ShapeError
from irlbook.lm.enumerable import EnumerableLM

__all__ = ["Particles", "exact_smc", "incremental_weights", "simulate_smc", "twisted_proposal"]


def twisted_proposal(lm: EnumerableLM, log_twists: np.ndarray) -> np.ndarray:
    """(S, A) q(a | s) ∝ pi_ref(a | s) psi(s a): the proposal that a twist implies."""
    return guided_policy(lm, log_twists, 1.0)


def incremental_weights(
    lm: EnumerableLM, log_twists: np.ndarray, proposal: np.ndarray
) -> np.ndarray:
    """(S, A) log w of each move, 0 in the rows of whole responses; -inf where pi_ref forbids it.

    Args:
        log_twists: (S,) log psi; that of the empty prefix is taken as 0, whatever it says.
        proposal: (S, A) q, above 0 wherever the reference is.

    Raises:
        InvalidPolicyError: the proposal forbids a move that the reference may make.
    """
    twists = check_scores(lm, log_twists).copy()
    twists[0] = 0.0
    if np.shape(proposal) != lm.policy.shape:
        raise ShapeError(f"proposal has shape {np.shape(proposal)}; expected {lm.policy.shape}.")
    live = lm.children[:, 0] >= 0
    if (proposal[live] <= 0)[lm.policy[live] > 0].any():
        raise InvalidPolicyError(
            "the proposal forbids a token that the reference may write, so Z^ would miss those "
            "responses. Give every such token a probability above 0."
        )
    logs = np.zeros(lm.policy.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(lm.policy[live]) - np.log(proposal[live])
    ratio = np.where(lm.policy[live] > 0, ratio, -np.inf)
    logs[live] = ratio + twists[lm.children[live]] - twists[live][:, None]
    return logs


@dataclass(frozen=True)
class Particles:
    """What runs of SMC ended with.

    Attributes:
        outputs: (runs,) the response of each run, by its place in `lm.responses`.
        log_z: (runs,) log Z^.
        distinct: (runs,) how many different responses the n particles held at the end.
        tokens: mean tokens that were generated (and scored) in a run.
    """

    outputs: np.ndarray
    log_z: np.ndarray
    distinct: np.ndarray
    tokens: float


def simulate_smc(
    lm: EnumerableLM,
    log_twists: np.ndarray,
    n: int,
    rng: np.random.Generator,
    *,
    proposal: np.ndarray | None = None,
    runs: int = 1,
    resample: bool = True,
) -> Particles:
    """Run SMC with n particles, `runs` times; multinomial resampling after every token.

    Args:
        log_twists: (S,) log psi; on whole responses r / beta.
        proposal: (S, A) q; None: the reference.
        resample: False is importance sampling: weights are multiplied up, and one of the n is
            drawn at the end.
    """
    if n < 1 or runs < 1:
        raise InvalidHyperparameterError(f"n={n} and runs={runs} must both be at least 1.")
    proposal = lm.policy if proposal is None else proposal
    weights = incremental_weights(lm, log_twists, proposal)
    cumulative = np.cumsum(proposal, axis=1)
    states = np.zeros((runs, n), dtype=int)
    log_z, kept = np.zeros(runs), np.zeros((runs, n))
    generated = 0
    for _ in range(lm.max_length):
        live = lm.children[states, 0] >= 0
        generated += int(live.sum())
        rows = cumulative[states]
        tokens = (rng.random((runs, n, 1)) * rows[..., -1:] >= rows).sum(axis=2)
        kept = kept + np.where(live, weights[states, tokens], 0.0)
        states = np.where(live, lm.children[states, tokens], states)
        if resample:
            log_z += np.logaddexp.reduce(kept, axis=1) - np.log(n)
            states = np.take_along_axis(states, _multinomial(kept, rng), axis=1)
            kept = np.zeros((runs, n))
    if not resample:
        log_z = np.logaddexp.reduce(kept, axis=1) - np.log(n)
        states = np.take_along_axis(states, _multinomial(kept, rng), axis=1)
    place = np.full(lm.n_states, -1)
    place[lm.responses] = np.arange(len(lm.responses))
    ordered = np.sort(states, axis=1)
    distinct = 1 + (np.diff(ordered, axis=1) != 0).sum(axis=1)
    return Particles(place[states[:, 0]], log_z, distinct, generated / runs)


def _multinomial(log_weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(runs, n) ancestors, drawn in proportion to the weights of each row."""
    shares = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    upto = np.cumsum(shares, axis=1) / shares.sum(axis=1, keepdims=True)
    runs, n = upto.shape
    row = np.arange(runs)[:, None]  # all rows in one sorted list: row + a number in [0, 1)
    drawn = np.searchsorted((row + upto).ravel(), row + rng.random((runs, n)), side="right")
    return np.clip(drawn - row * n, 0, n - 1)


def exact_smc(
    lm: EnumerableLM, log_twists: np.ndarray, n: int, *, proposal: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """All outcomes of SMC with n particles, summed up; for tiny models and n of 2 or 3.

    Particles are exchangeable, so an outcome is a sorted tuple of prefixes. Along with its
    probability goes E[Z^; outcome], which is all that the mean of Z^ needs.

    Returns:
        (R,) Pr(output = y) and (R,) E[Z^ 1{output = y}], whose sum is E[Z^].
    """
    if n < 1:
        raise InvalidHyperparameterError(f"n={n}: SMC needs a particle or more.")
    proposal = lm.policy if proposal is None else proposal
    weights = np.exp(incremental_weights(lm, log_twists, proposal))
    live = lm.children[:, 0] >= 0
    now: dict[tuple[int, ...], np.ndarray] = {(0,) * n: np.array([1.0, 1.0])}  # Pr, E[Z^; .]
    for _ in range(lm.max_length):
        after: dict[tuple[int, ...], np.ndarray] = {}
        for states, mass in now.items():
            ways: list[tuple[float, tuple[tuple[float, int], ...]]] = [(1.0, ())]
            for state in states:
                options = [(1.0, 1.0, state)]  # a whole response stays
                if live[state]:
                    options = [
                        (proposal[state, a], weights[state, a], int(lm.children[state, a]))
                        for a in np.flatnonzero(proposal[state] > 0)
                    ]
                ways = [(p * q, (*seen, (w, to))) for p, seen in ways for q, w, to in options]
            for p, drawn in ways:
                w = np.array([weight for weight, _ in drawn])
                for chosen, chance in _ancestors(w / w.sum()):
                    key = tuple(sorted(drawn[i][1] for i in chosen))
                    after[key] = after.get(key, 0.0) + p * chance * mass * [1.0, w.mean()]
        now = after
    place = {int(state): k for k, state in enumerate(lm.responses)}
    found = np.zeros((2, len(lm.responses)))
    for states, mass in now.items():
        for state in states:
            found[:, place[state]] += mass / n
    return found[0], found[1]


def _ancestors(shares: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    """Every way to draw n ancestors, with its chance."""
    ways: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
    for _ in range(len(shares)):
        ways = [
            ((*chosen, i), chance * float(share))
            for chosen, chance in ways
            for i, share in enumerate(shares)
            if share > 0
        ]
    return ways
