"""Claims of the text, and the small statistics that they stand on.

A number that was learned differs from one computer to the next, so the book does not print it: it
prints a verdict, and the verdict stands on an assertion, a tolerance or a test over seeds.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from itertools import combinations, product
from math import comb
from typing import Literal

import numpy as np

from irlbook.errors import ClaimFailed

Alternative = Literal["two-sided", "greater", "less"]


def verdict(claim: str, holds: bool, detail: object = None) -> None:
    """Print `ok: <claim>` when it holds, and stop the notebook when it does not.

    Args:
        claim: the sentence of the book, without digits that differ between computers.
        holds: a single truth value; a number or an array is refused, since NaN counts as true.
        detail: the figures behind it; shown only when the claim fails.

    Raises:
        ClaimFailed: it does not hold.
        TypeError: `holds` is not a truth value.
    """
    if not isinstance(holds, bool | np.bool_):
        raise TypeError(
            f"holds must be True or False, not {type(holds).__name__}; "
            "write a comparison, and .all() or .any() around one of arrays"
        )
    if not holds:
        raise ClaimFailed(
            f"this does not hold here: {claim}"
            + ("" if detail is None else f"\n  measured: {detail}")
            + "\n  If you changed a setting above, that may be why; else restart the kernel, run "
            "all cells, and report it if it fails again."
        )
    print(f"ok: {claim}")


@dataclass(frozen=True)
class PublishedResult:
    """One published number beside ours.

    Attributes:
        paper: author and year.
        where: the figure, table or theorem.
        theirs: what it says.
        ours: what this run gives, rounded or worded so that it is the same on every computer.
        verdict: "agrees", "same order", "does not reproduce: why", ...
    """

    paper: str
    where: str
    theirs: str | float
    ours: str | float
    verdict: str


def published_table(rows: Iterable[PublishedResult]) -> None:
    """Print published results beside ours: paper, where, theirs, ours, verdict."""
    names = [field.name for field in fields(PublishedResult)]
    cells = [
        [f"{v:.4g}" if isinstance(v, float | np.floating) else str(v) for v in values]
        for values in ([getattr(row, name) for name in names] for row in rows)
    ]
    widths = [max(len(text) for text in column) for column in zip(names, *cells, strict=True)]
    for line in [names, ["-" * width for width in widths], *cells]:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def bootstrap_ci(
    x: np.ndarray,
    rng: np.random.Generator,
    statistic: Callable[[np.ndarray], float] = np.mean,
    level: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic (Efron and Tibshirani 1993, section 13.3).

    Args:
        x: (n, ...) n independent replicates along the first axis, for instance seeds.
        rng: draws the resamples.
        statistic: of an array like `x`, to a number.
        level: the coverage aimed at. With few replicates it is too narrow: for a mean of five
            it covers about 82 % instead of 95 %.
        resamples: how many times `x` is drawn again with replacement.

    Returns:
        (low, high).

    Raises:
        ValueError: fewer than two replicates, or `level` outside (0, 1).
    """
    x = np.asarray(x)
    if len(x) < 2:
        raise ValueError("an interval needs at least two replicates; run more seeds")
    if not 0 < level < 1:
        raise ValueError(f"level={level} is not between 0 and 1; 0.95 is usual")
    draws = rng.integers(0, len(x), size=(resamples, len(x)))
    values = np.array([statistic(x[draw]) for draw in draws])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def permutation_test(
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator,
    alternative: Alternative = "two-sided",
    paired: bool = False,
    resamples: int = 10_000,
) -> float:
    """p-value of a difference in means, by permutation (Good 2005, chapter 3).

    All relabellings are tried when there are at most `resamples` of them (the p-value is then
    exact); else that many are drawn, and the labelling seen counts among them, so p is never 0.

    Args:
        x: (n,) one number a replicate.
        y: (m,) the others. With `paired`, m = n and x[i], y[i] share a seed.
        rng: draws relabellings when they are too many to try.
        alternative: "greater" tests that x is greater on average than y.
        paired: swap within pairs (flip signs of x - y) instead of relabelling all.
        resamples: at most so many relabellings.

    Returns:
        The p-value. Five seeds against five cannot give less than 1/252 (paired: 1/32).

    Raises:
        ValueError: an empty sample, a NaN, or pairs of different length.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if not (x.ndim == y.ndim == 1 and len(x) and len(y)):
        raise ValueError("both samples must be flat and not empty: one number a replicate")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a sample holds NaN or infinity; find the seed that diverged first")
    if paired and len(x) != len(y):
        raise ValueError(f"{len(x)} and {len(y)} values cannot be paired; give one y for each x")
    if paired:
        difference = x - y
        exact = 2 ** len(x) <= resamples
        signs = (
            np.array(list(product([1.0, -1.0], repeat=len(x))))
            if exact
            else rng.choice([1.0, -1.0], size=(resamples, len(x)))
        )
        seen, others = difference.mean(), signs @ difference / len(x)
    else:
        pooled, n = np.concatenate([x, y]), len(x)
        exact = comb(len(pooled), n) <= resamples
        chosen = (
            np.array(list(combinations(range(len(pooled)), n)))
            if exact
            else rng.permuted(np.tile(np.arange(len(pooled)), (resamples, 1)), axis=1)[:, :n]
        )
        sums = pooled[chosen].sum(axis=1)
        seen, others = x.mean() - y.mean(), sums / n - (pooled.sum() - sums) / len(y)
    if alternative == "less":
        seen, others = -seen, -others
    elif alternative == "two-sided":
        seen, others = abs(seen), np.abs(others)
    elif alternative != "greater":
        raise ValueError(f"alternative={alternative!r}; use two-sided, greater or less")
    tie = 1e-12 * max(np.abs(x).max(), np.abs(y).max())
    extreme = int(np.sum(others >= seen - tie))
    return extreme / len(others) if exact else (extreme + 1) / (resamples + 1)
