"""Bradley–Terry: rewards from pairwise comparisons, one number an item or linear in features.

A comparison is a row of `pairs` (P, 2): column 0 was preferred to column 1. Item i has the reward
r_i = phi_i . w. Without features every item has its own weight, w = r (*estimation*); with features
(M, K) all items share K weights (*regression*). With d_p = phi_winner - phi_loser,

    Pr(winner of p is preferred) = sigma(d_p . w / beta).

Sources: Zermelo 1929; Bradley and Terry 1952 (the model); Ford 1957 (when it can be fitted);
Springall 1973 (regression on features); Hunter 2004 (the MM algorithm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import sparse
from scipy.optimize import linprog
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, log_expit, ndtri

from irlbook.errors import (
    InvalidHyperparameterError,
    InvalidPreferencesError,
    NotConvergedError,
    NotFiniteError,
    SeparablePreferencesError,
    ShapeError,
    UnidentifiedRewardError,
    shown,
)
from irlbook.mdp import as_floats
from irlbook.planning import SolverReport

__all__ = [
    "BradleyTerryResult",
    "NAMED",
    "PairReport",
    "SMALL",
    "SUSPICIOUS_MARGIN",
    "as_pairs",
    "bradley_terry_gradient",
    "bradley_terry_log_likelihood",
    "check_win_graph",
    "differences",
    "fisher_information",
    "fit_bradley_terry",
    "inspect_pairs",
    "laplace_of_wins",
    "pairs_from_labels",
    "sample_preferences",
    "win_graph",
]

SUSPICIOUS_MARGIN = 12.0  # log-odds of a fitted choice from which on we always ask if w diverges
SMALL = 1 << 16  # entries up to which a dense matrix is faster than a sparse one
NAMED = 8  # rows or items that a message names before it says "and so on"


# The data -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairReport:
    """What is odd about comparisons, row by row (rows are counted from 0).

    Attributes:
        identical: rows that compare an item with itself, or with one of equal features.
        duplicates: rows that repeat an earlier row. Honest if the question was asked again; if the
            data were copied, every interval is too narrow.
        contradictions: rows that say the opposite of an earlier row. Normal for noisy choosers.
        missing: items that are never compared.
    """

    identical: tuple[int, ...]
    duplicates: tuple[int, ...]
    contradictions: tuple[int, ...]
    missing: tuple[int, ...]


def inspect_pairs(pairs: Any, features: Any = None, *, n_items: int | None = None) -> PairReport:
    """Report identical, repeated and contradictory comparisons by row. Nothing is changed.

    Args:
        pairs: (P, 2) int, column 0 preferred. features: (M, K), to find equal ones too.
        n_items: M; None: one more than the largest item.
    """
    given = as_pairs(pairs)
    size = _size(given, features, n_items)
    first: dict[tuple[int, int], int] = {}
    identical, duplicates, contradictions = [], [], []
    equal = given[:, 0] == given[:, 1]
    if features is not None:
        phi = np.asarray(features, dtype=float)
        equal |= (phi[given[:, 0]] == phi[given[:, 1]]).all(axis=1)
    for row, (winner, loser) in enumerate(given.tolist()):
        if equal[row]:
            identical.append(row)
        if (winner, loser) in first:
            duplicates.append(row)
        elif (loser, winner) in first:
            contradictions.append(row)
        first.setdefault((winner, loser), row)
    missing = np.setdiff1d(np.arange(size), given)
    return PairReport(
        tuple(identical), tuple(duplicates), tuple(contradictions), tuple(missing.tolist())
    )


def pairs_from_labels(left: Any, right: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Comparisons and counts from labels: 1 left was preferred, 0 right was, 1/2 a tie.

    Any share in [0, 1] is taken: 0.7 counts as 0.7 of a win for left and 0.3 for right. So a tie is
    half a win each, and is not thrown away: it says that two items are close.

    Args:
        left, right: (P,) items. labels: (P,).

    Returns:
        pairs (Q, 2) and counts (Q,), without rows of count 0.

    Raises:
        InvalidPreferencesError: a label that is no share, or an item that is no number.
        ShapeError: not flat, or not of one length.
    """
    left, right = _as_items(left, "left"), _as_items(right, "right")
    share = _as_shares(labels)
    if not (left.shape == right.shape == share.shape and share.ndim == 1):
        raise ShapeError("left, right and labels must be flat and of one length.")
    bad = np.flatnonzero(~((share >= 0) & (share <= 1)))
    if bad.size:
        raise InvalidPreferencesError(
            f"labels of rows {_names(bad)} are not in [0, 1]: give 1 where left was preferred, "
            "0 where right was, 0.5 for a tie (not -1, and not NaN for a missing answer)."
        )
    pairs = np.concatenate([np.column_stack([left, right]), np.column_stack([right, left])])
    counts = np.concatenate([share, 1 - share])
    return pairs[counts > 0], counts[counts > 0]


def _as_items(items: Any, name: str) -> np.ndarray:
    """Item numbers, whole and not negative."""
    try:
        given = np.asarray(items)
    except ValueError:  # rows of unlike length
        given = np.empty(0, dtype=object)
    if given.size and (given.dtype.kind not in "iu" or given.min() < 0):
        raise InvalidPreferencesError(
            f"{name} must hold item numbers 0, 1, 2 ...; got {shown(items)}. Number the items."
        )
    return given.astype(np.intp)


def _as_shares(labels: Any) -> np.ndarray:
    """Labels as floats; a word is refused by its row."""
    try:
        return np.asarray(labels, dtype=float)
    except (TypeError, ValueError):
        rows = labels if isinstance(labels, list | tuple | np.ndarray) else [labels]
        row, word = next(((i, x) for i, x in enumerate(rows) if not _is_number(x)), (0, labels))
        raise InvalidPreferencesError(
            f"the label of row {row} is {shown(word)}; give 1 where left was preferred, 0 where "
            "right was, 0.5 for a tie."
        ) from None


def _is_number(given: Any) -> bool:
    try:
        float(given)
    except (TypeError, ValueError):
        return False
    return True


def sample_preferences(
    rewards: np.ndarray, pairs: Any, rng: np.random.Generator, beta: float = 1.0
) -> np.ndarray:
    """(P, 2) ask a chooser of temperature beta about each pair; column 0 is what it prefers."""
    asked = as_pairs(pairs)
    r = np.asarray(rewards, dtype=float)
    first = rng.random(len(asked)) < expit((r[asked[:, 0]] - r[asked[:, 1]]) / beta)
    return np.where(first[:, None], asked, asked[:, ::-1])


def win_graph(pairs: Any, n_items: int | None = None, counts: Any = None) -> sparse.csr_array:
    """(M, M) sparse: entry (i, j) is how often i was preferred to j."""
    given = as_pairs(pairs)
    size = _size(given, None, n_items)
    weight = _as_counts(counts, len(given))
    wins = sparse.csr_array(
        sparse.coo_array((weight, (given[:, 0], given[:, 1])), shape=(size, size))
    )
    wins.eliminate_zeros()  # a pair that was counted 0 times is no edge of the graph
    return wins


def check_win_graph(pairs: Any, n_items: int | None = None, counts: Any = None) -> None:
    """Ford's condition: one finite best reward exists if and only if from every item a chain of
    wins leads to every other, that is, if the win graph is strongly connected.

    Raises:
        UnidentifiedRewardError: groups of items were never compared with each other.
        SeparablePreferencesError: some items never lost to any of the others.

    Source: Ford 1957 (assumption at the head of the paper); Hunter 2004, assumption 1.
    """
    wins = win_graph(pairs, n_items, counts)
    parts, label = connected_components(wins, directed=True, connection="weak")
    if parts > 1:
        sizes = np.bincount(label)
        groups = [np.flatnonzero(label == k) for k in np.argsort(sizes)]
        small = "; ".join(f"items {_names(g)}" for g in groups[:-1][:3] if len(g) > 1)
        alone = np.sort([g[0] for g in groups if len(g) == 1])
        raise UnidentifiedRewardError(
            f"the comparisons fall into {parts} groups that were never compared with each other"
            + (f": {small} against the rest" if small else "")
            + (f"; items {_names(alone)} were never compared at all" if len(alone) else "")
            + ". Between groups no difference of rewards can be known. Compare some of them, fit "
            "the groups apart, share features, or give l2 > 0 (which then decides)."
        )
    parts, label = connected_components(wins, directed=True, connection="strong")
    if parts > 1:
        ends = _ends(wins, label, parts)
        few = [[g for g in groups if 2 * len(g) <= wins.shape[0]] for groups in ends]
        never_lost, never_won = few if any(few) else ends
        raise SeparablePreferencesError(
            "the maximum likelihood is at infinity: "
            + " and ".join(
                [f"items {_names(g)} never lost to any of the others" for g in never_lost]
                + [f"items {_names(g)} never won against any of the others" for g in never_won]
            )
            + ". Ask more about them, or give l2 > 0 (which then says how far away they are)."
        )


def _ends(wins, label, parts) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Strong components without a loss to, and without a win against, the rest."""
    edges = wins.tocoo()
    between = label[edges.row] != label[edges.col]
    lost, won = np.zeros(parts, dtype=bool), np.zeros(parts, dtype=bool)
    won[label[edges.row[between]]] = True
    lost[label[edges.col[between]]] = True
    return (
        [np.flatnonzero(label == k) for k in np.flatnonzero(~lost)],
        [np.flatnonzero(label == k) for k in np.flatnonzero(~won)],
    )


# The likelihood -----------------------------------------------------------------------------------


def differences(pairs: Any, features: Any = None, *, n_items: int | None = None) -> Any:
    """(P, K) d_p = phi_winner - phi_loser; without features (P, M) sparse, with a 1 and a -1."""
    given = as_pairs(pairs)
    size = _size(given, features, n_items)
    if features is not None:
        phi = np.asarray(features, dtype=float)
        return phi[given[:, 0]] - phi[given[:, 1]]
    rows = np.repeat(np.arange(len(given)), 2)
    signs = np.tile([1.0, -1.0], len(given))
    return sparse.csr_array((signs, (rows, given.reshape(-1))), shape=(len(given), size))


def bradley_terry_log_likelihood(
    weights: np.ndarray, pairs: Any, features: Any = None, *, counts: Any = None, beta: float = 1.0
) -> float:
    """L(w) = sum_p c_p log sigma(d_p . w / beta) <= 0. The *loss* is -L.

    Args:
        weights: (K,), or without features the rewards (M,). pairs: (P, 2), column 0 preferred.
        features: (M, K). counts: (P,) c_p, how often each row was seen; None: once.

    Source: Bradley and Terry 1952; with features Springall 1973.
    """
    design, weight = _problem(weights, pairs, features, counts, beta)
    return float(weight @ log_expit(design @ np.asarray(weights, dtype=float) / beta))


def bradley_terry_gradient(
    weights: np.ndarray, pairs: Any, features: Any = None, *, counts: Any = None, beta: float = 1.0
) -> np.ndarray:
    """(K,) dL/dw = sum_p c_p (1 - sigma(d_p . w / beta)) d_p / beta.

    Without features entry i is (wins of i, less the wins that the model expects of i) / beta.
    """
    design, weight = _problem(weights, pairs, features, counts, beta)
    surprise = weight * expit(-(design @ np.asarray(weights, dtype=float)) / beta)
    return design.T @ surprise / beta


def fisher_information(
    weights: np.ndarray, pairs: Any, features: Any = None, *, counts: Any = None, beta: float = 1.0
) -> np.ndarray:
    """(K, K) I(w) = sum_p c_p p (1 - p) d_p d_p' / beta^2 with p = sigma(d_p . w / beta).

    It is minus the Hessian of L, and does not depend on who won: it can be computed *before* a
    pair is labelled (chapter 16). Without features it is the Laplacian of the comparison graph with
    edge weights p (1 - p) / beta^2, and its null vector is the constant reward.

    Source: Shen et al. 2025 (2502.04354); the printed box of the survey has phi_1 - phi_1 for d.
    """
    design, weight = _problem(weights, pairs, features, counts, beta)
    p = expit(design @ np.asarray(weights, dtype=float) / beta)
    return _gram(design, weight * p * (1 - p) / beta**2)


def _gram(design: Any, weight: np.ndarray) -> np.ndarray:
    if sparse.issparse(design):
        return (design.T @ (sparse.diags_array(weight) @ design)).toarray()
    return design.T @ (weight[:, None] * design)


# The fit ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BradleyTerryResult:
    """Fitted rewards.

    Attributes:
        weights: (K,) w; without features the rewards themselves.
        rewards: (M,) phi w. Without features they add up to 0: only differences are known.
        covariance: (K, K) of the weights: inverse of the Fisher information (plus l2), taken
            across the constant reward where that is free.
        log_likelihood: L(w), without the penalty.
        report: residual is max |gradient of the loss|, per comparison, for w in units of
            beta / max |d|.
    """

    weights: np.ndarray
    rewards: np.ndarray
    covariance: np.ndarray
    log_likelihood: float
    report: SolverReport
    features: np.ndarray | None = None

    def interval(self, contrast: Any, level: float = 0.95) -> tuple[float, float]:
        """Wald interval of sum_i c_i r_i, for c (M,) that adds up to 0.

        Raises:
            UnidentifiedRewardError: it does not add up to 0, so it holds the unknown constant.
        """
        c = np.asarray(contrast, dtype=float)
        if c.shape != self.rewards.shape:
            raise ShapeError(f"contrast has shape {c.shape}; expected {self.rewards.shape}.")
        if abs(c.sum()) > 1e-9 * max(1.0, np.abs(c).max()):
            raise UnidentifiedRewardError(
                f"the contrast adds up to {c.sum():.3g}, not 0: choices do not see a constant "
                "that is added to all rewards. Ask for a difference: r_i - r_j, or r_i - mean."
            )
        along = c if self.features is None else self.features.T @ c
        half = ndtri((1 + level) / 2) * np.sqrt(max(0.0, along @ self.covariance @ along))
        middle = float(c @ self.rewards)
        return middle - half, middle + half

    def difference_interval(self, i: int, j: int, level: float = 0.95) -> tuple[float, float]:
        """Wald interval of r_i - r_j."""
        contrast = np.zeros(len(self.rewards))
        contrast[i] += 1.0
        contrast[j] -= 1.0
        return self.interval(contrast, level)


def fit_bradley_terry(
    pairs: Any,
    features: Any = None,
    *,
    n_items: int | None = None,
    counts: Any = None,
    beta: float = 1.0,
    l2: float | np.ndarray = 0.0,
    method: Literal["newton", "mm"] = "newton",
    tolerance: float = 1e-10,
    max_iterations: int | None = None,
) -> BradleyTerryResult:
    """Maximise L(w) - sum_k l2_k w_k^2 / 2. It is concave: there is one valley and no trap.

    Args:
        pairs: (P, 2) items, column 0 preferred. Repeated rows count each time.
        features: (M, K) for regression. None: one reward an item.
        n_items: M, when the last items may be missing from `pairs`.
        counts: (P,) how often each row was seen, not negative; need not be whole.
        beta: temperature of the chooser. Only w / beta is seen: a wrong beta rescales w.
        l2: penalty, a number or (K,). With l2 > 0 a finite optimum always exists.
        method: "newton" (a handful of steps), or "mm", Hunter's minorise-maximise: no features, no
            penalty, many cheap steps.
        tolerance: on the report's residual. max_iterations: None: 100, for mm 100,000.

    Raises:
        InvalidPreferencesError: a pair of identical items, or numbers that are no items.
        UnidentifiedRewardError, SeparablePreferencesError: no unique finite optimum (l2 = 0).
        NotConvergedError: it stopped above the tolerance.
    """
    given = as_pairs(pairs)
    size = _size(given, features, n_items)
    weight = _as_counts(counts, len(given))
    same = np.flatnonzero(given[:, 0] == given[:, 1])
    if same.size:
        raise InvalidPreferencesError(
            f"rows {_names(same)} compare an item with itself. Drop them; if they stand for ties, "
            "use pairs_from_labels, and if responses were merged, look for what merged them."
        )
    if not beta > 0:
        raise InvalidHyperparameterError(f"beta is {beta}; a temperature is above 0.")
    given, weight = given[weight > 0], weight[weight > 0]
    phi = None if features is None else np.asarray(features, dtype=float)
    penalty = np.broadcast_to(np.asarray(l2, dtype=float), size if phi is None else phi.shape[1])
    if not (penalty >= 0).all():
        raise InvalidHyperparameterError("l2 is a penalty and must not be negative.")
    free = phi is None and not penalty.any()  # the constant reward
    if phi is None:
        wins = win_graph(given, size, weight).tocoo()  # repeated rows add up
        given, weight = np.column_stack([wins.row, wins.col]), wins.data
    if free:
        check_win_graph(given, size, weight)
    design = differences(given, phi, n_items=size)
    if phi is None and design.shape[0] * size < SMALL:
        design = design.toarray()
    if phi is not None:
        _check_rank(design, penalty)
    if method == "newton":
        w, report = _newton(design, weight, beta, penalty, free, tolerance, max_iterations or 100)
    elif method == "mm" and free:
        w, report = _mm(given, size, weight, beta, tolerance, max_iterations or 100_000)
    else:
        raise InvalidHyperparameterError(
            f'method is {shown(method)}; use "newton", or "mm" without features and l2.'
        )
    margin = design @ w / beta
    # where w runs away, the solver stops once its rows add less than the tolerance
    suspicious = min(SUSPICIOUS_MARGIN, -np.log(tolerance * weight.sum()) - 3)
    if phi is not None and not penalty.all() and margin.max(initial=0.0) > suspicious:
        _check_overlap(design, given, penalty)
    if not report.converged:
        raise NotConvergedError(
            f"{report.method} stopped after {report.iterations} iterations at "
            f"{report.residual:.3g}, above the tolerance {tolerance:.3g}. Raise max_iterations, "
            'loosen the tolerance, bring features to one scale, or use method="newton".'
        )
    p = expit(margin)
    information = _gram(design, weight * p * (1 - p) / beta**2) + np.diag(penalty)
    constant = np.full_like(information, information.trace() / size**2) if free else 0.0
    covariance = np.linalg.inv(information + constant)
    if free:  # the constant reward is not a direction that the choices say anything about
        covariance -= covariance.mean()
        w = w - w.mean()
    rewards = w if phi is None else phi @ w
    likelihood = float(weight @ log_expit(margin))
    return BradleyTerryResult(w, rewards, covariance, likelihood, report, phi)


def _newton(design, weight, beta, penalty, free, tolerance, max_iterations):
    """Newton's method with a backtracking line search on the penalised loss."""

    def loss(v):
        return -weight @ log_expit(design @ v / beta) + penalty @ v**2 / 2

    w = np.zeros(design.shape[1])
    longest = abs(design).max() or 1.0  # items of equal features: only the penalty is left
    total, value = weight.sum() * longest / beta, loss(w)
    for iteration in range(max_iterations + 1):
        p = expit(design @ w / beta)
        gradient = -(design.T @ (weight * (1 - p))) / beta + penalty * w
        residual = float(np.abs(gradient).max() / total)
        if residual <= tolerance or iteration == max_iterations:
            break
        hessian = _gram(design, weight * p * (1 - p) / beta**2) + np.diag(penalty)
        if free:
            hessian += hessian.trace() / len(w) ** 2  # moves no difference: the gradient adds to 0
        step = np.linalg.solve(hessian + 1e-14 * hessian.trace() * np.eye(len(w)), -gradient)
        slope, length, rounding = gradient @ step, 1.0, 1e-12 * max(1.0, value)
        while loss(w + length * step) > value + 1e-4 * length * slope + rounding:
            length /= 2
        w = w + length * step
        value = loss(w)
    return w, SolverReport(
        "Bradley-Terry newton", residual <= tolerance, iteration, residual, tolerance
    )


def _mm(pairs, size, weight, beta, tolerance, max_iterations):
    """Hunter's step, with s = exp(r / beta): s_i <- wins_i / sum_p (1 / (s_i + s_j))."""
    winner, loser = pairs.T
    won = np.bincount(winner, weight, size)
    s, total = np.ones(size), weight.sum()
    for iteration in range(max_iterations + 1):
        each = weight / (s[winner] + s[loser])
        faced = np.bincount(winner, each, size) + np.bincount(loser, each, size)
        residual = float(np.abs(won - s * faced).max() / total)  # wins less expected wins
        if residual <= tolerance or iteration == max_iterations:
            break
        s = won / faced
        s /= np.exp(np.log(s).mean())
    return beta * np.log(s), SolverReport(
        "Bradley-Terry MM", residual <= tolerance, iteration, residual, tolerance
    )


def _check_rank(design: np.ndarray, penalty: np.ndarray) -> None:
    """Directions of w that no comparison and no penalty sees."""
    scale = np.sqrt((design**2).sum(axis=0).max())
    values, vectors = np.linalg.eigh(design.T @ design + np.diag(penalty))
    if values[0] <= 1e-12 * max(scale**2, penalty.max()):
        direction = vectors[:, 0] / np.abs(vectors[:, 0]).max()
        raise UnidentifiedRewardError(
            "the comparisons leave a direction of the weights free: features "
            f"{_names(np.flatnonzero(np.abs(direction) > 1e-6))} never differ, or cancel, within "
            "any pair. A feature of the prompt alone does this. Drop one, compare items that "
            "differ in it, or give l2 > 0."
        )


def _check_overlap(design: np.ndarray, pairs: np.ndarray, penalty: np.ndarray) -> None:
    """Raise if some w wins every comparison: then L rises for ever along w.

    Source: Albert and Anderson 1984; found by a linear programme.
    """
    bounds = [(-1.0, 1.0) if free else (0.0, 0.0) for free in penalty == 0]
    program = linprog(-design.sum(axis=0), A_ub=-design, b_ub=np.zeros(len(design)), bounds=bounds)
    if program.status == 0 and -program.fun > 1e-7 * np.abs(design).max():
        w = program.x
        won = np.flatnonzero(design @ w > 1e-9 * np.abs(design).max())
        items = np.setdiff1d(np.unique(pairs[won, 0]), np.unique(pairs[won, 1]))
        among = f"; items {_names(items)} only ever win along it" if items.size else ""
        raise SeparablePreferencesError(
            "the maximum likelihood is at infinity: the weights "
            f"{np.array2string(w, precision=3, threshold=NAMED)} agree with every comparison and "
            f"decide {len(won)} of {len(pairs)} rows{among}. Noise-free choosers, and more "
            "features than pairs, do this. Give l2 > 0, or ask again about close pairs."
        )


# Checks -------------------------------------------------------------------------------------------


def _problem(weights, pairs, features, counts, beta) -> tuple[Any, np.ndarray]:
    if not beta > 0:
        raise InvalidHyperparameterError(f"beta is {beta}; a temperature is above 0.")
    count = np.shape(weights)
    n_items = count[0] if features is None and len(count) == 1 else None
    design = differences(pairs, features, n_items=n_items)
    if count != (design.shape[1],):
        raise ShapeError(f"weights have shape {count}; expected ({design.shape[1]},).")
    return design, _as_counts(counts, design.shape[0])


def as_pairs(pairs: Any) -> np.ndarray:
    """(P, 2) int, not empty.

    Raises:
        InvalidPreferencesError: another shape, or entries that are no item numbers.
    """
    try:
        given = np.asarray(pairs)
    except ValueError:  # rows of unlike length
        raise InvalidPreferencesError(
            "pairs have rows of unlike length; expected (P, 2): a row for each comparison, the "
            "preferred item first."
        ) from None
    if given.ndim != 2 or given.shape[1] != 2 or not len(given):
        raise InvalidPreferencesError(
            f"pairs have shape {given.shape}; expected (P, 2) with P > 0: a row for each "
            "comparison, the preferred item first."
        )
    if given.dtype.kind not in "iu":
        raise InvalidPreferencesError(
            f"pairs hold {given.dtype}, not whole numbers. Number the items 0, 1, ...; rewards or "
            "labels do not belong here (pairs_from_labels takes labels)."
        )
    bad = np.flatnonzero((given < 0).any(axis=1))
    if bad.size:
        raise InvalidPreferencesError(f"rows {_names(bad)} hold negative item numbers.")
    return given.astype(np.intp, copy=False)


def _size(pairs: np.ndarray, features: Any, n_items: int | None) -> int:
    if features is not None:
        phi = as_floats(features, "features")
        if phi.ndim != 2:
            raise ShapeError(f"features have shape {phi.shape}; expected (M, K).")
        if not np.isfinite(phi).all():
            raise NotFiniteError("features must all be finite; find the item that broke first.")
        n_items = len(phi)
    size = int(pairs.max()) + 1 if n_items is None else n_items
    bad = np.flatnonzero((pairs >= size).any(axis=1))
    if bad.size:
        raise InvalidPreferencesError(
            f"rows {_names(bad)} name items beyond the last of {size} (items count from 0)."
        )
    return size


def _as_counts(counts: Any, n_pairs: int) -> np.ndarray:
    if counts is None:
        return np.ones(n_pairs)
    weight = as_floats(counts, "counts")
    if weight.shape != (n_pairs,):
        raise ShapeError(f"counts have shape {weight.shape}; expected ({n_pairs},).")
    bad = np.flatnonzero(~((weight >= 0) & (weight < np.inf)))
    if bad.size:
        raise InvalidPreferencesError(f"counts of rows {_names(bad)} are negative or not finite.")
    return weight


def _names(numbers: np.ndarray) -> str:
    """ "3, 5, 8" with an end when there are many."""
    shown = ", ".join(str(int(k)) for k in numbers[:NAMED])
    return shown + (f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else "")


def laplace_of_wins(
    wins: Any, features: Any, l2: float, start: Any = None, steps: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """(S, K) posterior modes and (S, K, K) covariances, of S tables of wins at once.

    Args:
        wins: (S, A, A), [s, i, j] how often i was preferred to j. features: (S, A, K).
        l2: precision of the prior. start: (S, K) where Newton begins; None: at 0.
        steps: of Newton's method, each halved until it does not lower the posterior.

    Raises:
        InvalidHyperparameterError: l2 is not above 0 (then a mode need not exist).
        ShapeError: wins and features do not fit.
    """
    if not l2 > 0:
        raise InvalidHyperparameterError(f"l2 is {l2}; without a prior the mode may be infinite.")
    n, phi = np.asarray(wins, dtype=float), np.asarray(features, dtype=float)
    if n.ndim != 3 or phi.ndim != 3 or n.shape[:2] != phi.shape[:2] or n.shape[1] != n.shape[2]:
        raise ShapeError(f"wins {n.shape} and features {phi.shape} must be (S, A, A), (S, A, K).")
    i, j = np.triu_indices(n.shape[1], 1)
    d = phi[:, i] - phi[:, j]  # (S, P, K)
    won, played = n[:, i, j], n[:, i, j] + n[:, j, i]
    w = np.zeros(phi.shape[::2]) if start is None else np.array(start, dtype=float)
    eye = l2 * np.eye(phi.shape[2])

    def parts(v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        z = np.einsum("spk,sk->sp", d, v)
        p = expit(z)
        height = (won * z - played * np.logaddexp(0, z)).sum(axis=1) - l2 * (v**2).sum(axis=1) / 2
        slope = np.einsum("sp,spk->sk", won - played * p, d) - l2 * v
        curve = np.einsum("sp,spk,spl->skl", played * p * (1 - p), d, d, optimize=True) + eye
        return height, slope, curve

    height, slope, curve = parts(w)
    for _ in range(steps):
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        length = np.ones(len(w))
        for _ in range(20):
            new = parts(w + length[:, None] * step)
            worse = new[0] < height - 1e-12 * np.abs(height)
            if not worse.any():
                break
            length = np.where(worse, length / 2, length)
        w = w + length[:, None] * step
        height, slope, curve = new
        if np.abs(slope).max() < 1e-9:
            break
    return w, np.linalg.inv(curve)
