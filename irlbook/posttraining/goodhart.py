"""Over-optimisation: the forms that Gao et al. fitted, and worlds whose curves are known exactly.

A policy is pushed to score well under a proxy, and we watch what it is worth under gold. How far it
was pushed is d = sqrt(KL(policy || reference)), KL in nats. Gold is counted from the reference:
R(0) = 0. Gao, Schulman and Hilton 2022 (2210.10760), section 1, found

    best of n    R(d) = d (alpha - beta d)
    RL           R(d) = d (alpha - beta log d).

In a :class:`World` a response is a feature vector phi in R^K, standard normal under the reference,
and gold is w . phi - c (|phi|^2 - K): it likes a direction, and nothing extreme. The proxy v . phi
is linear, learned from comparisons. Whoever optimises it changes z = v . phi / |v| alone, so

    E[gold] = kappa E[z] - c (E[z^2] - 1),      kappa = w . v / |v|,

and two moments of z give the whole curve: of the best of n (:func:`exact_best_of_n_curve`), of the
KL-regularised optimum (:func:`tilted_curve`), and of a policy that gambles on the tail
(:func:`tail_curve`). No sampling anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats
from scipy.special import expit, xlogy

from irlbook.errors import (
    InvalidHyperparameterError,
    RewardError,
    ShapeError,
    UninformativeDataError,
)
from irlbook.preferences.bradley_terry import fit_bradley_terry, sample_preferences

__all__ = [
    "Curve",
    "Extrapolation",
    "Form",
    "GaoFit",
    "STEP",
    "World",
    "distance",
    "draw_world",
    "exact_best_of_n_curve",
    "extrapolate",
    "fit_gao",
    "gao_best_of_n",
    "gao_rl",
    "learn_proxy",
    "moments_of_max",
    "r_squared",
    "tail_curve",
    "tilted_curve",
]

Form = Literal["best of n", "rl"]
STEP = 0.05  # of the quadrature; halving it changes no moment by more than 1e-10

# The forms of Gao et al. --------------------------------------------------------------------------


def distance(kl: Any) -> np.ndarray:
    """d = sqrt(KL), the axis of all curves.

    Raises:
        InvalidHyperparameterError: a negative or infinite KL. An estimate (k1) can be negative
            near the reference: drop that point, or take k3, which never is.
    """
    kl = np.asarray(kl, dtype=float)
    if not ((kl >= 0) & np.isfinite(kl)).all():
        raise InvalidHyperparameterError(
            "a KL is negative, infinite or NaN, so it has no root. Estimates (k1) scatter around 0 "
            "near the reference: drop such points, average more samples, or use k3."
        )
    return np.sqrt(kl)


def gao_best_of_n(d: Any, alpha: float, beta: float) -> np.ndarray:
    """d (alpha - beta d), with d = sqrt(KL). Gao et al. 2022 (2210.10760), section 1."""
    d = _distances(d)
    return d * (alpha - beta * d)


def gao_rl(d: Any, alpha: float, beta: float) -> np.ndarray:
    """d (alpha - beta log d), with d = sqrt(KL) and 0 at d = 0, where it is infinitely steep.

    Source: Gao et al. 2022 (2210.10760), section 1. Often misquoted as alpha sqrt(KL) - beta KL,
    which is their form for best of n.
    """
    d = _distances(d)
    return alpha * d - beta * xlogy(d, d)


@dataclass(frozen=True)
class GaoFit:
    """A fitted form.

    Attributes:
        form: "best of n" or "rl". alpha, beta: its coefficients, in gold's units.
        r2: 1 - residual sum of squares / sum of squares around the mean, on the points fitted.
        n_points: how many those were.
    """

    form: Form
    alpha: float
    beta: float
    r2: float
    n_points: int

    def predict(self, d: Any) -> np.ndarray:
        """Gold at d = sqrt(KL)."""
        form = gao_best_of_n if self.form == "best of n" else gao_rl
        return form(d, self.alpha, self.beta)

    @property
    def peak(self) -> float:
        """The d of greatest gold: alpha / 2 beta, or exp(alpha / beta - 1).

        0 if gold falls from the start, infinity if it never turns over (beta <= 0).
        """
        a, b = self.alpha, self.beta
        if b <= 0:
            return 0.0 if b == 0 and a <= 0 else np.inf
        if self.form == "best of n":
            return max(a, 0.0) / (2 * b)
        with np.errstate(over="ignore"):
            return float(np.exp(a / b - 1))


def fit_gao(d: Any, gold: Any, form: Form = "best of n") -> GaoFit:
    """Least squares; both forms are linear in alpha and beta, so the answer is closed.

    A form has no intercept: measure gold from the reference. Points at d = 0 change nothing.

    Args:
        d: (N,) sqrt(KL), not KL. gold: (N,). At least three different d > 0.

    Raises:
        ShapeError: unequal lengths. UninformativeDataError: too few points. RewardError: gold is
            not finite, or constant (R^2 has no meaning). InvalidHyperparameterError: a negative d,
            or another form.

    Source: Gao et al. 2022 (2210.10760), sections 1 and 3.1.
    """
    d, gold = _curve(d, gold)
    if form not in ("best of n", "rl"):
        raise InvalidHyperparameterError(f'form is {form!r}; choose "best of n" or "rl".')
    bend = d**2 if form == "best of n" else xlogy(d, d)
    (alpha, minus_beta), *_ = np.linalg.lstsq(np.column_stack([d, bend]), gold, rcond=None)
    r2 = r_squared(gold, alpha * d + minus_beta * bend)
    return GaoFit(form, float(alpha), float(-minus_beta), r2, len(d))


def r_squared(gold: Any, predicted: Any) -> float:
    """1 - sum (gold - predicted)^2 / sum (gold - mean gold)^2. It may be negative."""
    gold, predicted = np.asarray(gold, dtype=float), np.asarray(predicted, dtype=float)
    if gold.shape != predicted.shape:
        raise ShapeError(f"gold {gold.shape} and predictions {predicted.shape} differ in shape.")
    around = ((gold - gold.mean()) ** 2).sum()
    if not around > 0:
        raise RewardError("gold is the same everywhere: there is no variance to explain.")
    return float(1 - ((gold - predicted) ** 2).sum() / around)


@dataclass(frozen=True)
class Extrapolation:
    """A form fitted on the points of small KL, and what it says about the others.

    Attributes:
        fit: on KL <= the limit. d, gold, predicted: (M,) the points beyond it.
        error: the largest |gold - predicted| beyond. relative: the same over the range of gold on
            all points.
    """

    fit: GaoFit
    d: np.ndarray
    gold: np.ndarray
    predicted: np.ndarray
    error: float
    relative: float


def extrapolate(d: Any, gold: Any, kl_limit: float, form: Form = "best of n") -> Extrapolation:
    """Fit where KL <= kl_limit, predict beyond: the test that Gao et al. put their form to.

    They fitted n <= 1000 (KL 5.9) and predicted n = 60,000 (KL 10).

    Raises:
        UninformativeDataError: nothing lies beyond the limit, or fewer than three points within.
    """
    d, gold = _curve(d, gold)
    near = d**2 <= kl_limit * (1 + 1e-12)
    if near.all() or (d[near] > 0).sum() < 3:
        raise UninformativeDataError(
            f"KL <= {kl_limit:.3g} holds for {near.sum()} of {len(d)} points; the fit needs three "
            "with KL > 0, and the prediction one beyond."
        )
    fit = fit_gao(d[near], gold[near], form)
    predicted = fit.predict(d[~near])
    error = float(np.abs(predicted - gold[~near]).max())
    return Extrapolation(fit, d[~near], gold[~near], predicted, error, error / np.ptp(gold))


# The world ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """Responses are feature vectors; the reference draws them; gold is linear minus quadratic.

    Attributes:
        weights: (K,) w, what gold likes.
        penalty: c >= 0, the price of a squared unit of feature. 0: gold is linear.
        degrees: of freedom. Infinity: phi ~ N(0, I). Else phi is multivariate Student t, scaled to
            unit variance; needs degrees > 2. Its tails are heavy, and its features are extreme
            together: uncorrelated, not independent.
    """

    weights: np.ndarray
    penalty: float = 0.2
    degrees: float = np.inf

    def __post_init__(self) -> None:
        w = np.asarray(self.weights, dtype=float)
        object.__setattr__(self, "weights", w)
        if w.ndim != 1:
            raise ShapeError(f"weights have shape {w.shape}; expected one vector.")
        if not np.isfinite(w).all() or not w.any():
            raise InvalidHyperparameterError("the weights must be finite, and not zero.")
        if not (self.penalty >= 0 and np.isfinite(self.penalty)):
            raise InvalidHyperparameterError(f"penalty is {self.penalty}; it must be >= 0.")
        _scale(self.degrees)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, K) responses of the reference."""
        phi = rng.normal(size=(n, len(self.weights)))
        if np.isinf(self.degrees):
            return phi
        return phi * np.sqrt((self.degrees - 2) / rng.chisquare(self.degrees, size=(n, 1)))

    def gold(self, phi: np.ndarray) -> np.ndarray:
        """(n,) w . phi - c (|phi|^2 - K): 0 on average under the reference."""
        phi = np.asarray(phi, dtype=float)
        return phi @ self.weights - self.penalty * ((phi**2).sum(axis=-1) - len(self.weights))

    def alignment(self, proxy: np.ndarray) -> float:
        """kappa = w . v / |v|: the gold in one standard deviation of proxy (if c = 0)."""
        v = np.asarray(proxy, dtype=float)
        if v.shape != self.weights.shape:
            raise ShapeError(f"the proxy has shape {v.shape}, the weights {self.weights.shape}.")
        length = np.linalg.norm(v)
        if not (np.isfinite(length) and length > 0):
            raise RewardError("the proxy is zero or not finite: it prefers nothing. Fit it again.")
        return float(self.weights @ v / length)

    def gold_of_moments(self, proxy: np.ndarray, mean: Any, square: Any) -> np.ndarray:
        """E[gold] of a policy that changes z = v . phi / |v| alone, from E[z] and E[z^2].

        Normal features: kappa E[z] - c (E[z^2] - 1), since the other K - 1 directions do not move.
        Student's: given z, each of them has variance (degrees - 2 + z^2) / (degrees - 1); what is
        extreme in one direction is extreme in all.
        """
        mean, square = np.asarray(mean, dtype=float), np.asarray(square, dtype=float)
        others = np.zeros_like(square)
        if np.isfinite(self.degrees):
            others = (len(self.weights) - 1) * (square - 1) / (self.degrees - 1)
        return self.alignment(proxy) * mean - self.penalty * (square - 1 + others)


def draw_world(
    rng: np.random.Generator, size: int = 16, penalty: float = 0.2, degrees: float = np.inf
) -> World:
    """A world whose gold likes a random direction of length 1."""
    w = rng.normal(size=size)
    return World(w / np.linalg.norm(w), penalty, degrees)


def learn_proxy(
    world: World, m: int, rng: np.random.Generator, beta: float = 0.25, l2: float = 0.1
) -> np.ndarray:
    """(K,) v of the linear Bradley–Terry reward v . phi, from m comparisons of fresh responses.

    Args:
        beta: temperature of the chooser, who sees gold. l2: penalty of the fit; above 0, since few
            comparisons of a sure chooser can be separated.
    """
    if m < 1:
        raise InvalidHyperparameterError(f"m is {m}; a proxy needs at least one comparison.")
    phi = world.sample(2 * m, rng)
    pairs = sample_preferences(world.gold(phi), np.arange(2 * m).reshape(m, 2), rng, beta)
    return fit_bradley_terry(pairs, phi, beta=beta, l2=l2).weights


# Exact curves -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """A family of policies. All (N,).

    Attributes:
        kl: nats from the reference. gold: E[gold].
        proxy: E[z], in standard deviations that the proxy has under the reference.
    """

    kl: np.ndarray
    proxy: np.ndarray
    gold: np.ndarray

    @property
    def d(self) -> np.ndarray:
        """sqrt(KL)."""
        return distance(self.kl)


def moments_of_max(n: Any, degrees: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
    """(E[M], E[M^2]) of the largest of n draws of z, standard normal or unit-variance Student t.

    The cdf of M is F^n, so M = F^-1(u^(1/n)) with u uniform. With u = 1 / (1 + exp(-x)) the
    integral over u becomes one over the line whose integrand dies off on both sides, and there the
    trapezoidal rule converges exponentially (Trefethen and Weideman 2014, SIAM Review 56(3)).

    Args:
        n: (N,) at least 1; need not be whole.
    """
    n = _sizes(n)
    scale, law = _scale(degrees), _law(degrees)
    heavy = 1.0 if np.isinf(degrees) else 1 - 2 / degrees  # the integrand decays as exp(-heavy x)
    x = np.arange(-40.0, 40.0, STEP * heavy) / heavy
    log_cdf = -np.logaddexp(0.0, -x) / n[..., None]  # (N, X) log u / n
    above = -np.expm1(log_cdf)
    z = scale * np.where(above < 0.5, law.isf(above), law.ppf(np.exp(log_cdf)))
    weight = STEP * expit(x) * expit(-x)
    return z @ weight, (z * z) @ weight


def exact_best_of_n_curve(world: World, proxy: np.ndarray, n: Any) -> Curve:
    """The best of n by the proxy. KL = log n - (n - 1) / n, exactly: a continuous score never ties.

    Source of the KL: Stiennon et al. 2020 (2009.01325), appendix G.3; an upper bound in general,
    Beirami et al. 2024 (2401.01879).
    """
    n = _sizes(n)
    mean, square = moments_of_max(n, world.degrees)
    return Curve(np.log(n) - (n - 1) / n, mean, world.gold_of_moments(proxy, mean, square))


def tilted_curve(world: World, proxy: np.ndarray, price: Any) -> Curve:
    """The maximiser of E[v . phi] - price KL: the reference tilted by exp(v . phi / price).

    Tilting N(0, I) moves it to N(v / price, I). With s = |v| / price that gives E[z] = s,
    KL = s^2 / 2 and gold = kappa s - c s^2 = d (sqrt(2) kappa - 2 c d): exactly the form
    that Gao et al. found for best of n, with alpha = sqrt(2) kappa and beta = 2 c.

    Args:
        price: (N,) > 0, of a nat, in the proxy's units.

    Raises:
        InvalidHyperparameterError: heavy tails, under which E[exp(v . phi / price)] is infinite at
            any price: there is no optimum (see :func:`tail_curve`).
    """
    if np.isfinite(world.degrees):
        raise InvalidHyperparameterError(
            "with heavy tails no KL price makes the proxy's optimum finite. Use "
            "exact_best_of_n_curve, or tail_curve to see why."
        )
    price = np.asarray(price, dtype=float)
    if not (price > 0).all():
        raise InvalidHyperparameterError("a price of KL is not above 0, and nothing bounds z then.")
    world.alignment(proxy)  # checks the proxy
    s = np.linalg.norm(proxy) / price
    return Curve(s**2 / 2, s, world.gold_of_moments(proxy, s, s**2 + 1))


def tail_curve(world: World, proxy: np.ndarray, threshold: Any, share: Any) -> Curve:
    """A gambler: like the reference, but with probability `share` its response has z > threshold.

    The density is multiplied by share / p above the threshold and (1 - share) / (1 - p) below,
    p = Pr(z > threshold), so KL = share log(share / p) + (1 - share) log((1 - share) / (1 - p)).
    If z has a heavy tail (p ~ t^-degrees), share = t^-0.8 sends the proxy to infinity while the KL
    goes to 0.

    Source: Kwa, Thomas and Garriga-Alonso 2024 (2407.14503), theorem 2 and figure 3.

    Args:
        threshold, share: (N,); 0 < share < 1.
    """
    t, share = np.broadcast_arrays(np.asarray(threshold, float), np.asarray(share, float))
    if not (np.isfinite(t).all() and ((share > 0) & (share < 1)).all()):
        raise InvalidHyperparameterError("thresholds must be finite, and shares between 0 and 1.")
    above, mean, square = _tail_moments(t, world.degrees)
    if not ((above > 0) & (above < 1)).all():
        raise InvalidHyperparameterError("a threshold is so far out that its tail has no mass.")
    kl = share * np.log(share / above) + (1 - share) * np.log((1 - share) / (1 - above))
    up, down = share / above, (1 - share) / (1 - above)
    mean, square = mean * (up - down), up * square + down * (1 - square)  # E[z] = 0, E[z^2] = 1
    return Curve(np.maximum(kl, 0.0), mean, world.gold_of_moments(proxy, mean, square))


def _tail_moments(t: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pr(z > t), E[z; z > t], E[z^2; z > t], by parts, for z of unit variance."""
    scale, law = _scale(degrees), _law(degrees)
    x = t / scale
    q, f = law.sf(x), law.pdf(x)
    if np.isinf(degrees):
        return q, f, x * f + q
    first = f * (degrees + x**2) / (degrees - 1)
    second = (x * f * (degrees + x**2) + degrees * q) / (degrees - 2)
    return q, scale * first, scale**2 * second


# Checks -------------------------------------------------------------------------------------------


def _law(degrees: float) -> Any:
    return stats.norm if np.isinf(degrees) else stats.t(degrees)


def _scale(degrees: float) -> float:
    """What brings Student's t to variance 1."""
    if not degrees > 2:
        raise InvalidHyperparameterError(
            f"degrees is {degrees}; at 2 or fewer the variance is infinite, and so is gold's mean."
        )
    return 1.0 if np.isinf(degrees) else float(np.sqrt((degrees - 2) / degrees))


def _sizes(n: Any) -> np.ndarray:
    n = np.asarray(n, dtype=float)
    if not ((n >= 1) & np.isfinite(n)).all():
        raise InvalidHyperparameterError("an n is below 1; the best of n needs n >= 1 samples.")
    return n


def _distances(d: Any) -> np.ndarray:
    d = np.asarray(d, dtype=float)
    if not ((d >= 0) & np.isfinite(d)).all():
        raise InvalidHyperparameterError(
            "a d is negative or not finite; d = sqrt(KL), see goodhart.distance."
        )
    return d


def _curve(d: Any, gold: Any) -> tuple[np.ndarray, np.ndarray]:
    d, gold = _distances(d), np.asarray(gold, dtype=float)
    if d.ndim != 1 or d.shape != gold.shape:
        raise ShapeError(f"d {d.shape} and gold {gold.shape} must be flat and of one length.")
    if not np.isfinite(gold).all():
        raise RewardError("a gold reward is NaN or infinite; find the policy that broke first.")
    if len(np.unique(d[d > 0])) < 3:
        raise UninformativeDataError(
            "two coefficients need at least three different points with d > 0."
        )
    return d, gold
