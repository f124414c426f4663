"""The family of a chapter's learned claims: both sides looked at, one correction for all.

A chapter that trains on a few seeds makes many comparisons. Each alone at the level 0.05, one in
twenty would be "established" by luck. So a chapter collects them in one :class:`Claims`, tests each
two-sided over its seeds, and corrects the p-values together (Holm 1979). What does not reach the
level is called *not established*, which is a result, too.

    claims = Claims("chapter 13")
    claims.paired("RLOO raises gold", gold_after, gold_before)
    claims.show()        # raw figures: tag the cell nbval-ignore-output
    claims.conclude({"RLOO raises gold": "greater"})  # stops if the text and the test disagree

The test is Student's on the differences of the seeds (Welch's where seeds are no pairs): with five
seeds a permutation test cannot give less than 1/16 two-sided, whatever was measured. It takes the
differences to be roughly normal; where they are not (a run that finds a reward or never does), use
`Claims.signs`, which only counts in how many seeds one side is ahead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from irlbook import display
from irlbook.errors import ClaimFailed

Side = Literal["greater", "less", "not established"]
Said = Side | Literal["greater on some processors"]
ON_SOME: Said = "greater on some processors"

__all__ = ["Claim", "Claims", "ON_SOME", "Said", "Side", "holm"]


def holm(p_values: Sequence[float]) -> np.ndarray:
    """(m,) p-values of a family of m tests, adjusted: below a level with its chance of *any* error.

    The smallest is multiplied by m, the next by m - 1, and so on; none falls below the one before.

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


@dataclass(frozen=True)
class Claim:
    """One comparison over seeds.

    Attributes:
        name: the sentence, in the direction "x is greater".
        mean: the effect, mean of x less mean of y, in their units.
        lowest, highest: of the seeds' differences; of x less the mean of y, if they are no pairs.
        seeds: how many, in words.
        p: two-sided, uncorrected.
    """

    name: str
    mean: float
    lowest: float
    highest: float
    seeds: str
    p: float


@dataclass
class Claims:
    """The learned claims of a chapter.

    Attributes:
        chapter: named in messages.
        ours: whether the figures come from the book's own model; of another one what differs from
            the text is reported and does not stop the notebook.
        level: the chance that *any* of the claims is called established by luck.
    """

    chapter: str
    ours: bool = True
    level: float = 0.05
    made: list[Claim] = field(default_factory=list)

    def paired(self, name: str, x: ArrayLike, y: ArrayLike = 0.0, *, of: str = "seeds") -> None:
        """Compare x with y, seed by seed; y may be one number that x is held against.

        Args:
            of: what there are many of, where it is not seeds (worlds, prompts, directions).

        Raises:
            ClaimFailed: fewer than three seeds, another number of seeds in y, a NaN of the book's
                own model (of another one it is "not established"), or a name that the family holds.
        """
        from scipy.stats import ttest_1samp

        x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        self._check(name, x, np.broadcast_to(y, x.shape) if y.ndim == 0 else y, paired=True)
        d = x - y
        # Without spread there is nothing for a t to be divided by.
        p = float(ttest_1samp(d, 0.0).pvalue) if np.ptp(d) else float(d[0] == 0)
        self._add(name, d, f"{len(d)} {of}", p)

    def independent(self, name: str, x: ArrayLike, y: ArrayLike, *, of: str = "seeds") -> None:
        """Compare x with y, whose seeds have nothing to do with each other (Welch's test).

        Args:
            of: as in :meth:`paired`.

        Raises:
            ClaimFailed: as :meth:`paired`, but for the number of seeds.
        """
        from scipy.stats import ttest_ind

        x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        self._check(name, x, y, paired=False)
        spread = np.ptp(x) + np.ptp(y)
        p = float(ttest_ind(x, y, equal_var=False).pvalue) if spread else float(x[0] == y[0])
        self._add(name, x - y.mean(), f"{len(x)} and {len(y)} {of}", p)

    def signs(self, name: str, x: ArrayLike, y: ArrayLike = 0.0, *, of: str = "seeds") -> None:
        """Compare x with y seed by seed, by which is larger only (the exact sign test).

        For results that are all or nothing, or cut off, whose differences are not normal at all.
        Ties say nothing and are left out of the test. The mean of the claim is the share of seeds
        in which x is larger, less the share in which y is. With fewer than six seeds that are no
        ties, p is never below 0.05.

        Args:
            of: as in :meth:`paired`.

        Raises:
            ClaimFailed: as :meth:`paired`.
        """
        from scipy.stats import binomtest

        x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        y = np.broadcast_to(y, x.shape) if y.ndim == 0 else y
        self._check(name, x, y, paired=True)
        ahead, behind = int((x > y).sum()), int((x < y).sum())
        p = float(binomtest(ahead, ahead + behind).pvalue) if ahead + behind else 1.0
        self._add(name, np.sign(x - y), f"{len(x)} {of}", p)

    def over_splits(self, name: str, x: ArrayLike, y: ArrayLike = 0.0, *, held_out: float) -> None:
        """Compare x with y over random splits of one data set, whose training parts overlap.

        Numbers of overlapping splits are alike, so an ordinary t is too large. Its variance is
        taken 1/n + f/(1 - f) times, with f the share that is held out, in place of 1/n.
        Source: Nadeau and Bengio 2003, section 3, the corrected resampled t-test.

        Args:
            x, y: (n,) a figure of each split; y may be one number.
            held_out: f, in (0, 1).

        Raises:
            ClaimFailed: as :meth:`paired`.
        """
        from scipy.stats import t as student

        x = np.asarray(x, dtype=float)
        y = np.broadcast_to(np.asarray(y, dtype=float), x.shape)
        self._check(name, x, y, paired=True)
        d = x - y
        error = float(np.sqrt(d.var(ddof=1) * (1 / len(d) + held_out / (1 - held_out))))
        p = float(2 * student.sf(abs(d.mean()) / error, len(d) - 1)) if error else float(d[0] == 0)
        self._add(name, d, f"{len(d)} splits", p)

    def _check(self, name: str, x: np.ndarray, y: np.ndarray, paired: bool) -> None:
        flat = x.ndim == y.ndim == 1 and min(len(x), len(y)) >= 3
        # Another model may break in a way that the text knows nothing of: p is NaN, not a fault.
        broken = self.ours and not (np.isfinite(x).all() and np.isfinite(y).all())
        if not flat or (paired and len(x) != len(y)) or broken:
            raise ClaimFailed(
                f"{name!r} compares numbers of shape {x.shape} with {y.shape}; it takes one finite "
                "number a seed on each side, and three seeds or more."
            )
        if any(claim.name == name for claim in self.made):
            raise ClaimFailed(f"{name!r} is in the family already; each claim is tested once.")

    def _add(self, name: str, d: np.ndarray, seeds: str, p: float) -> None:
        self.made.append(Claim(name, float(d.mean()), float(d.min()), float(d.max()), seeds, p))

    def adjusted(self) -> dict[str, float]:
        """Holm's p-value of each claim."""
        found = holm([claim.p for claim in self.made])
        return {claim.name: float(p) for claim, p in zip(self.made, found, strict=True)}

    def sides(self) -> dict[str, Side]:
        """What the family says of each claim."""
        adjusted = self.adjusted()
        return {claim.name: self._side(claim, adjusted[claim.name]) for claim in self.made}

    def show(self) -> None:
        """Show every claim with its figures: they differ a little from computer to computer."""
        adjusted = self.adjusted()
        display.show_table(
            ["claim", "mean", "lowest", "highest", "p", "Holm", "seeds"],
            [
                [c.name, *(f"{x:.3g}" for x in (c.mean, c.lowest, c.highest))]
                + [f"{c.p:.2g}", f"{adjusted[c.name]:.2g}", c.seeds]
                for c in self.made
            ],
        )

    def conclude(self, text: Mapping[str, Said]) -> None:
        """Print what is established, and stop if the text says anything else.

        Levels of p stand in the table of `show`: like all learned digits they differ from computer
        to computer, and what is printed here is compared.

        Training amplifies rounding, so a claim near the level can be established as one processor
        trains and not as another does. Its text says `ON_SOME`, which a mean that is not above zero
        contradicts.

        Args:
            text: for each claim of the family, what the chapter says of it.

        Raises:
            ClaimFailed: the text leaves a claim out, or says what the family does not.
        """
        if set(text) != {claim.name for claim in self.made}:
            odd = set(text) ^ {claim.name for claim in self.made}
            raise ClaimFailed(f"{self.chapter}: text and family differ in {sorted(odd)}.")
        adjusted, sides = self.adjusted(), self.sides()
        wrong = [c.name for c in self.made if not _agrees(text[c.name], sides[c.name], c.mean)]
        if self.ours and wrong:
            measured = "; ".join(f"{n}: {sides[n]} (Holm p {adjusted[n]:.2g})" for n in wrong)
            raise ClaimFailed(f"{self.chapter} says otherwise than was measured. {measured}")
        print(f"{len(self.made)} claims, one family, Holm at {self.level:g}:")
        for claim in self.made:
            side: Said = sides[claim.name]
            other = ""
            if text[claim.name] == ON_SOME and self.ours:
                side = ON_SOME
            elif side != text[claim.name]:
                other = f" (the book's model: {text[claim.name]})"
            word = {"greater": "ok", "less": "the other way round"}.get(side, side)
            display.say(f"{word}: {claim.name}; {claim.seeds}{other}")

    def _side(self, claim: Claim, p: float) -> Side:
        if not p < self.level:
            return "not established"
        return "greater" if claim.mean > 0 else "less"


def _agrees(said: str, side: Side, mean: float) -> bool:
    return mean > 0 if said == ON_SOME else said == side
