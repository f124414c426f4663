"""Claims of the text, and the small statistics that they stand on.

A number that was learned differs from one computer to the next, so the book does not print it: it
prints a verdict, and the verdict stands on an assertion, a tolerance or a test over seeds.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from html import escape
from itertools import combinations, product
from math import comb
from typing import Literal

import numpy as np
from scipy.stats import bootstrap, norm

from irlbook import display
from irlbook.errors import (
    ClaimFailed,
    InvalidHyperparameterError,
    NotATruthValueError,
    NotFiniteError,
    ShapeError,
    UninformativeDataError,
    shown,
)

__all__ = [
    "Alternative",
    "PublishedResult",
    "bootstrap_ci",
    "permutation_test",
    "power_of",
    "prompts_needed",
    "published_table",
    "verdict",
]

Alternative = Literal["two-sided", "greater", "less"]


def verdict(claim: str, holds: bool, detail: object = None, *, measured: str = "") -> None:
    """Print `ok: <claim> [<measured>]` when it holds, and stop the notebook when it does not.

    Args:
        claim: the sentence of the book.
        holds: a single truth value; a number or an array is refused, since NaN counts as true.
        detail: the raw figures behind it; shown only when the claim fails.
        measured: what the cell measured, as the reader is to see it: rounded so that it is the same
            on every computer, or a range over seeds. An effect is not hidden behind an "ok".

    Raises:
        ClaimFailed: it does not hold.
        NotATruthValueError: `holds` is not a truth value.
    """
    if not isinstance(holds, bool | np.bool_):
        raise NotATruthValueError(
            f"holds must be True or False, not {type(holds).__name__}; "
            "write a comparison, and .all() or .any() around one of arrays"
        )
    if not holds:
        raise ClaimFailed(
            f"this does not hold here: {claim}"
            + (f" [{measured}]" if measured else "")
            + ("" if detail is None else f"\n  measured: {detail}")
            + "\n  If you changed a setting above, that may be why; else restart the kernel, run "
            "all cells, and report it if it fails again."
        )
    display.say(f"ok: {claim}" + (f" [{measured}]" if measured else ""))


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
    """Show published results beside ours; the verdict stands under the name of the result.

    As text (in a terminal, and for nbval): paper, where, theirs, ours, verdict.

    Raises:
        ShapeError: a row is no `PublishedResult`.
    """
    rows = list(rows)
    for row in rows:
        if not isinstance(row, PublishedResult):
            raise ShapeError(
                f"a row is {type(row).__name__}: {shown(row)}. Give stats.PublishedResult(paper, "
                "where, theirs, ours, verdict)."
            )
    names = [field.name for field in fields(PublishedResult)]
    texts = [[display.cell_text(getattr(row, name)) for name in names] for row in rows]
    plain = display.text_table(names, texts)
    cells = [
        [
            f"<strong>{escape(paper)}</strong>, {escape(where)}<br>"
            + display.badge(verdict, _leaning(verdict)),
            escape(theirs),
            escape(ours),
        ]
        for paper, where, theirs, ours, verdict in texts
    ]
    html = display.html_table(
        ["published result, verdict", "theirs", "ours"], cells, [False] * 3, stack=True
    )
    if not display.publish({"text/html": html, "text/plain": plain}):
        print(plain)


def _leaning(verdict: str) -> Literal["yes", "part", "no", "open"]:
    """Which mark a verdict gets, from its words: "agrees in part" is no full agreement.

    What is not established is open: it is no result against the paper.
    """
    words = verdict.lower()
    if re.search(r"\bnot (established|tested)\b|^neither\b", words):
        return "open"
    if re.match(r"(does not|do not|not|no|fails|contradicted)\b|.*\bis not\b", words):
        return "no"
    full = re.match(r"(agrees|holds|reproduces|established|reached)\b", words)
    return "yes" if full and not re.search(r"\b(but|not|in part)\b", words) else "part"


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
        UninformativeDataError: fewer than two replicates.
        InvalidHyperparameterError: `level` outside (0, 1).
    """
    x = np.asarray(x)
    if len(x) < 2:
        raise UninformativeDataError("an interval needs at least two replicates; run more seeds")
    if not 0 < level < 1:
        raise InvalidHyperparameterError(f"level={level} is not between 0 and 1; 0.95 is usual")
    found = bootstrap(
        (np.arange(len(x)),),  # replicates are drawn whole, whatever the shape of one
        lambda draw: statistic(x[draw]),
        vectorized=False,
        method="percentile",
        n_resamples=resamples,
        confidence_level=level,
        rng=rng,
    ).confidence_interval
    return float(found.low), float(found.high)


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

    Labellings as extreme as the one seen up to rounding count as ties. SciPy's test takes its
    tolerance from the difference seen, and so misses ties about 0 (samples in tenths with equal
    means then get p = 0.8 for 1), which is why this one is our own.

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
        ShapeError: an empty sample, or pairs of different length. NotFiniteError: a NaN.
        InvalidHyperparameterError: another `alternative`.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if not (x.ndim == y.ndim == 1 and len(x) and len(y)):
        raise ShapeError("both samples must be flat and not empty: one number a replicate")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise NotFiniteError("a sample holds NaN or infinity; find the seed that diverged first")
    if paired and len(x) != len(y):
        raise ShapeError(f"{len(x)} and {len(y)} values cannot be paired; give one y for each x")
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
        raise InvalidHyperparameterError(
            f"alternative={alternative!r}; use two-sided, greater or less"
        )
    tie = 1e-12 * max(np.abs(x).max(), np.abs(y).max())
    extreme = int(np.sum(others >= seen - tie))
    return extreme / len(others) if exact else (extreme + 1) / (resamples + 1)


def power_of(
    difference: float,
    between: float,
    within: float,
    prompts: int,
    per_prompt: int,
    level: float = 0.05,
) -> float:
    """Chance that a two-sided test finds a difference of two policies on the same prompts.

    The difference on a prompt varies with standard deviation `between`, and each of `per_prompt`
    responses of either policy adds noise of `within`. So the mean over prompts has the standard
    error sqrt((between^2 + 2 within^2 / per_prompt) / prompts). Normal approximation.

    Args:
        difference: true mean difference. between, within: standard deviations, in its units.
        level: of the test.

    Raises:
        InvalidHyperparameterError: no prompts or responses, a negative deviation, or both zero.
    """
    _check_design(between, within, per_prompt, level)
    if prompts < 1:
        raise InvalidHyperparameterError(f"prompts={prompts}; at least 1.")
    error = np.sqrt((between**2 + 2 * within**2 / per_prompt) / prompts)
    away, bound = abs(difference) / error, norm.ppf(1 - level / 2)
    return float(norm.sf(bound - away) + norm.cdf(-bound - away))


def prompts_needed(
    difference: float,
    between: float,
    within: float,
    per_prompt: int,
    power: float = 0.8,
    level: float = 0.05,
) -> int:
    """The fewest prompts with which :func:`power_of` is `power` or more.

    Raises:
        InvalidHyperparameterError: as there; a difference of 0, or a power outside (level, 1).
    """
    _check_design(between, within, per_prompt, level)
    if not difference or not level < power < 1:
        raise InvalidHyperparameterError(
            f"difference={difference}, power={power}; a difference other than 0, and a power "
            "between the level and 1."
        )

    def enough(n: int) -> bool:
        return power_of(difference, between, within, n, per_prompt, level) >= power

    high = 1
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check_design(between: float, within: float, per_prompt: int, level: float) -> None:
    if per_prompt < 1 or min(between, within) < 0 or not between + within or not 0 < level < 1:
        raise InvalidHyperparameterError(
            f"between={between}, within={within}, per_prompt={per_prompt}, level={level}: needs "
            "standard deviations from 0, not both 0, a response or more, and a level in (0, 1)."
        )
