"""The forms of Gao et al., and exact over-optimisation curves, each against a second way."""

import numpy as np
import pytest
from scipy import integrate, stats

from irlbook.errors import (
    InvalidHyperparameterError,
    RewardError,
    ShapeError,
    UninformativeDataError,
)
from irlbook.lm.enumerable import best_of_n_kl_bound
from irlbook.posttraining import goodhart
from irlbook.posttraining.goodhart import (
    World,
    distance,
    draw_world,
    exact_best_of_n_curve,
    extrapolate,
    fit_gao,
    gao_best_of_n,
    gao_rl,
    learn_proxy,
    moments_of_max,
    r_squared,
    tail_curve,
    tilted_curve,
)

NS = 2.0 ** np.arange(15)


def world_and_proxy(seed=0, penalty=0.2, degrees=np.inf, m=200):
    rng = np.random.default_rng(seed)
    world = draw_world(rng, penalty=penalty, degrees=degrees)
    return world, learn_proxy(world, m, rng)


# The forms ----------------------------------------------------------------------------------------


def test_forms():
    d = np.array([0.0, 0.5, 1.0, 2.0])
    assert gao_best_of_n(d, 1.5, 0.25) == pytest.approx([0, 0.6875, 1.25, 2.0])
    assert gao_rl(d, 1.5, 0.25) == pytest.approx(
        [0, 0.5 * (1.5 + 0.25 * np.log(2)), 1.5, 2 * (1.5 - 0.25 * np.log(2))]
    )
    assert distance([0.0, 4.0]) == pytest.approx([0, 2])


@pytest.mark.parametrize("form", ["best of n", "rl"])
def test_fit_recovers_and_is_least_squares(form):
    rng = np.random.default_rng(1)
    d = rng.uniform(0.1, 3, size=30)
    f = gao_best_of_n if form == "best of n" else gao_rl
    fit = fit_gao(d, f(d, 1.3, 0.4), form)
    assert (fit.alpha, fit.beta, fit.r2) == pytest.approx((1.3, 0.4, 1.0), abs=1e-12)
    gold = f(d, 1.3, 0.4) + rng.normal(size=30)
    fit = fit_gao(d, gold, form)
    loss = ((gold - fit.predict(d)) ** 2).sum()
    for a, b in rng.normal(scale=0.1, size=(20, 2)):
        assert ((gold - f(d, fit.alpha + a, fit.beta + b)) ** 2).sum() > loss
    assert fit.r2 == pytest.approx(1 - loss / ((gold - gold.mean()) ** 2).sum())
    # A point at the reference is no information, although it counts in R^2.
    more = fit_gao(np.append(d, 0.0), np.append(gold, 0.0), form)
    assert (more.alpha, more.beta) == pytest.approx((fit.alpha, fit.beta))


@pytest.mark.parametrize("form", ["best of n", "rl"])
def test_peak_is_the_maximum(form):
    d = np.linspace(0.001, 20, 200_000)
    f = gao_best_of_n if form == "best of n" else gao_rl
    fit = fit_gao(d, f(d, 1.3, 0.4), form)
    assert fit.peak == pytest.approx(d[fit.predict(d).argmax()], abs=1e-3)
    assert fit_gao(d, f(d, 1.3, -0.4), form).peak == np.inf
    assert goodhart.GaoFit(form, 1.0, 0.0, 1.0, 3).peak == np.inf
    assert goodhart.GaoFit(form, -1.0, 0.0, 1.0, 3).peak == 0
    assert goodhart.GaoFit("best of n", -1.0, 0.1, 1.0, 3).peak == 0
    assert goodhart.GaoFit("rl", 1.0, 1e-9, 1.0, 3).peak == np.inf  # beyond the floats, no warning


def test_extrapolation():
    d = np.linspace(0.2, 3, 15)
    good = extrapolate(d, gao_best_of_n(d, 1.2, 0.3), 4.0)
    assert good.error == pytest.approx(0, abs=1e-12)
    assert (good.d > 2).all() and good.fit.n_points == (d <= 2).sum()
    other = extrapolate(d, gao_best_of_n(d, 1.2, 0.3), 4.0, "rl")
    assert other.error > 0.1
    assert other.relative == pytest.approx(other.error / np.ptp(gao_best_of_n(d, 1.2, 0.3)))
    # The limit is one of KL, not of d; a point on it counts as near.
    assert len(extrapolate([1, 2, 3, 4], [1, 2, 3, 3], 9.0).d) == 1


# Moments and curves against sampling and quadrature -----------------------------------------------


def test_moments_of_max_closed_forms():
    mean, square = moments_of_max([1, 2, 3, 4])
    root = np.sqrt(3) / np.pi
    assert mean == pytest.approx([0, np.pi**-0.5, 1.5 * np.pi**-0.5, 1.0293753730], abs=1e-9)
    assert square == pytest.approx([1, 1, 1 + root / 2, 1 + root], abs=1e-9)
    mean, square = moments_of_max(1.0, degrees=3)
    assert (mean, square) == pytest.approx((0, 1), abs=1e-9)  # the slowest decay of all
    mean, _ = moments_of_max(2.0, degrees=3)  # E max = E|x - y| / 2
    f = lambda x: 2 * x * stats.t.pdf(x, 3) * stats.t.cdf(x, 3) / np.sqrt(3)  # noqa: E731
    assert mean == pytest.approx(integrate.quad(f, -np.inf, np.inf)[0], abs=1e-7)


@pytest.mark.parametrize(("n", "degrees"), [(7.5, np.inf), (1000.0, np.inf), (50.0, 5.0)])
def test_moments_of_max_by_quadrature(n, degrees):
    law = stats.norm if np.isinf(degrees) else stats.t(degrees, scale=np.sqrt(1 - 2 / degrees))
    top = law.isf(1 / n)
    for k, got in enumerate(moments_of_max(n, degrees), start=1):
        f = lambda z, k=k: z**k * n * law.pdf(z) * law.cdf(z) ** (n - 1)  # noqa: E731
        parts = [(-np.inf, 0), (0, top), (top, top + 3), (top + 3, np.inf)]
        want = sum(integrate.quad(f, *p, epsabs=1e-11)[0] for p in parts)
        assert got == pytest.approx(want, rel=1e-6)


def test_step_of_the_quadrature(monkeypatch):
    cases = [(NS, np.inf), (NS, 3.0), (NS, 30.0)]
    before = [np.array(moments_of_max(*case)) for case in cases]
    monkeypatch.setattr(goodhart, "STEP", goodhart.STEP / 2)
    for old, case in zip(before, cases, strict=True):
        assert np.allclose(old, moments_of_max(*case), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("degrees", [np.inf, 8.0])
def test_best_of_n_curve_by_sampling(degrees):
    world, proxy = world_and_proxy(degrees=degrees)
    rng = np.random.default_rng(0)
    for n in (4, 32):
        phi = world.sample(n * 20_000, rng)
        best = (phi @ proxy).reshape(-1, n).argmax(axis=1)
        chosen = phi.reshape(-1, n, 16)[np.arange(len(best)), best]
        gold, z = world.gold(chosen), chosen @ proxy / np.linalg.norm(proxy)
        curve = exact_best_of_n_curve(world, proxy, n)
        for got, seen in ((curve.gold, gold), (curve.proxy, z)):
            assert abs(got - seen.mean()) < 4 * seen.std() / np.sqrt(len(seen))
        assert curve.kl == pytest.approx(best_of_n_kl_bound(n))


def test_reference_has_no_gold_and_unit_features():
    for degrees in (np.inf, 8.0):
        world, proxy = world_and_proxy(degrees=degrees)
        phi = world.sample(100_000, np.random.default_rng(0))
        assert np.allclose(phi.var(axis=0), 1, atol=0.06)
        assert abs(world.gold(phi).mean()) < 0.06
        curve = exact_best_of_n_curve(world, proxy, 1)
        assert (curve.kl, curve.proxy, curve.gold) == pytest.approx((0, 0, 0), abs=1e-7)


def test_tilted_curve_is_the_tilted_reference():
    """By weighting samples of the reference, and the optimum against other shifts."""
    world, proxy = world_and_proxy()
    price = 2.0 * np.linalg.norm(proxy)  # a shift of a half
    curve = tilted_curve(world, proxy, price)
    phi = world.sample(400_000, np.random.default_rng(0))
    tilt = np.exp(phi @ proxy / price)
    tilt /= tilt.sum()
    gold, z = world.gold(phi), phi @ proxy / np.linalg.norm(proxy)
    assert float(tilt @ gold) == pytest.approx(float(curve.gold), abs=0.02)
    assert float(tilt @ z) == pytest.approx(float(curve.proxy), abs=0.01)
    assert float(tilt @ np.log(tilt * len(tilt))) == pytest.approx(float(curve.kl), abs=0.01)
    value = np.linalg.norm(proxy) * curve.proxy - price * curve.kl
    for other in np.linspace(0, 2, 21):
        assert np.linalg.norm(proxy) * other - price * other**2 / 2 <= value + 1e-12


def test_tilted_curve_has_the_best_of_n_form_exactly():
    world, proxy = world_and_proxy(penalty=0.3)
    curve = tilted_curve(world, proxy, np.geomspace(0.2, 20, 30) * np.linalg.norm(proxy))
    fit = fit_gao(curve.d, curve.gold)
    kappa = world.alignment(proxy)
    assert (fit.alpha, fit.beta, fit.r2) == pytest.approx((np.sqrt(2) * kappa, 0.6, 1.0), abs=1e-10)
    assert fit.peak == pytest.approx(kappa / (2 * 0.3) / np.sqrt(2))
    assert fit_gao(curve.d, curve.gold, "rl").r2 < 0.97


def test_no_policy_gets_more_proxy_at_the_same_kl():
    """Gibbs: E[z] <= sqrt(2) d when z is normal; the tilted policy meets it, best of n does not."""
    world, proxy = world_and_proxy()
    best = exact_best_of_n_curve(world, proxy, NS[1:])
    assert (best.proxy < np.sqrt(2) * best.d).all()
    assert (best.proxy > 0.85 * np.sqrt(2) * best.d).all()
    tilted = tilted_curve(world, proxy, np.linalg.norm(proxy) / best.proxy)
    assert tilted.proxy == pytest.approx(best.proxy)
    assert (tilted.kl < best.kl).all()
    # At the same proxy, best of n scatters less, and gold does not like scatter.
    assert (best.gold >= tilted.gold - 1e-12).all()
    assert (best.gold - tilted.gold <= world.penalty).all()


# What the curriculum found ------------------------------------------------------------------------


def test_more_data_later_and_higher_peak():
    peaks, tops, alphas = [], [], []
    for m in (50, 200, 2000):
        runs = [world_and_proxy(seed, m=m) for seed in range(10)]
        curves = [exact_best_of_n_curve(*run, NS) for run in runs]
        fits = [fit_gao(c.d, c.gold) for c in curves]
        assert min(f.r2 for f in fits) > 0.995
        assert all(0.36 < f.beta < 0.41 for f in fits)
        peaks.append(np.mean([f.peak for f in fits]))
        tops.append(np.mean([c.gold.max() for c in curves]))
        alphas.append(np.mean([f.alpha for f in fits]))
    assert np.all(np.diff(peaks) > 0.05) and np.all(np.diff(tops) > 0.05)
    assert alphas == pytest.approx([1.08, 1.34, 1.43], abs=0.12)


def test_argmax_of_n_grows_with_alignment():
    """gold(n') - gold(n) = kappa (m1' - m1) - c (m2' - m2) grows with kappa: single crossing."""
    n = np.arange(1.0, 400.0)
    mean, square = moments_of_max(n)
    worlds = [
        World(np.array([kappa, np.sqrt(1 - kappa**2)])) for kappa in np.linspace(0.0, 1.0, 41)
    ]
    best = [n[w.gold_of_moments([1.0, 0.0], mean, square).argmax()] for w in worlds]
    assert (np.diff(best) >= 0).all() and best[0] < 3 and best[-1] > 100


def test_below_baseline_with_a_dear_penalty():
    gold = [
        exact_best_of_n_curve(*world_and_proxy(s, penalty=0.3, m=200), NS).gold for s in range(10)
    ]
    assert (np.array(gold)[:, -1] < 0).all()


def test_linear_gaussian_never_turns_over():
    for seed in range(5):
        world, proxy = world_and_proxy(seed, penalty=0.0)
        curve = exact_best_of_n_curve(world, proxy, np.append(NS, 1e9))
        assert (np.diff(curve.gold) > 0).all()
        fit = fit_gao(curve.d[:-1], curve.gold[:-1])
        assert fit.peak == np.inf and abs(fit.beta) < 0.05 and fit.r2 > 0.999


def test_heavy_tails_crash_and_do_not_fit():
    for seed in range(5):
        world, proxy = world_and_proxy(seed, degrees=3.0)
        light, heavy = (
            exact_best_of_n_curve(w, proxy, NS)
            for w in (World(world.weights, world.penalty), world)
        )
        assert heavy.gold[-1] < -500 < -5 < light.gold[-1]
        assert fit_gao(heavy.d, heavy.gold).r2 < 0.85 < 0.99 < fit_gao(light.d, light.gold).r2


@pytest.mark.parametrize("degrees", [np.inf, 5.0])
def test_tail_curve_by_quadrature(degrees):
    world, proxy = world_and_proxy(degrees=degrees)
    law = stats.norm if np.isinf(degrees) else stats.t(degrees, scale=np.sqrt(1 - 2 / degrees))
    t, share = 1.3, 0.25
    p = law.sf(t)
    got = tail_curve(world, proxy, t, share)

    def mean(of):
        up = integrate.quad(lambda z: of(z, share / p) * law.pdf(z), t, np.inf)[0] * share / p
        low = (1 - share) / (1 - p)
        return up + integrate.quad(lambda z: of(z, low) * law.pdf(z), -np.inf, t)[0] * low

    assert got.kl == pytest.approx(mean(lambda z, r: np.log(r)), abs=1e-9)
    assert got.proxy == pytest.approx(mean(lambda z, r: z), abs=1e-8)
    square = mean(lambda z, r: z * z)
    assert got.gold == pytest.approx(world.gold_of_moments(proxy, got.proxy, square), abs=1e-7)
    same = tail_curve(world, proxy, t, p)  # the share that the reference has already
    assert (same.kl, same.proxy, same.gold) == pytest.approx((0, 0, 0), abs=1e-9)


def test_heavy_tails_buy_any_proxy_for_no_kl():
    world, proxy = world_and_proxy(degrees=3.0)
    t = 10.0 ** np.arange(2, 13)
    curve = tail_curve(world, proxy, t, t**-0.8)
    assert (np.diff(curve.kl) < 0).all() and curve.kl[-1] < 1e-6
    assert (np.diff(curve.proxy) > 0).all() and curve.proxy[-1] > 100
    assert (np.diff(curve.gold) < 0).all()
    light = tail_curve(World(world.weights), proxy, np.linspace(1, 30, 30), 0.01)
    assert (light.proxy <= np.sqrt(2) * light.d + 1e-12).all()
    with pytest.raises(InvalidHyperparameterError, match="no KL price"):
        tilted_curve(world, proxy, 1.0)


def test_learned_proxy_is_the_library_fit_and_improves():
    world = draw_world(np.random.default_rng(0), penalty=0.0)
    kappa = [
        world.alignment(learn_proxy(world, m, np.random.default_rng(1))) for m in (20, 200, 5000)
    ]
    assert kappa[0] < kappa[1] < kappa[2] and kappa[2] > 0.98
    a, b = (learn_proxy(world, 50, np.random.default_rng(3)) for _ in range(2))
    assert (a == b).all()


def test_a_proxy_without_settings_is_of_a_rather_sure_chooser_and_a_light_penalty():
    world = draw_world(np.random.default_rng(0))
    usual, same, other, harder = (
        learn_proxy(world, 30, np.random.default_rng(1), **options)
        for options in ({}, {"beta": 0.25, "l2": 0.1}, {"beta": 0.5}, {"l2": 1.0})
    )
    assert (usual == same).all() and (usual != other).any()
    assert np.linalg.norm(harder) < np.linalg.norm(usual)
    plain = draw_world(np.random.default_rng(0), 16, 0.2, np.inf)
    assert (world.weights == plain.weights).all() and (world.penalty, world.degrees) == (
        0.2,
        np.inf,
    )
    assert World([1.0]).penalty == 0.2


def test_what_is_extrapolated_is_what_lies_beyond():
    d, gold = np.array([0.5, 1.0, 1.5, 2.0, 2.5]), np.array([0.3, 0.9, 0.8, -0.4, 0.5])
    found = extrapolate(d, gold, 2.25)
    inner = fit_gao(d[:3], gold[:3])
    assert (
        found.fit == inner and found.d.tolist() == [2.0, 2.5] and found.gold.tolist() == [-0.4, 0.5]
    )
    np.testing.assert_allclose(found.predicted, inner.predict([2.0, 2.5]))
    assert found.error == pytest.approx(np.abs(found.predicted - found.gold).max())
    assert found.relative == pytest.approx(found.error / 1.3)  # gold ranges from -0.4 to 0.9
    with pytest.raises(UninformativeDataError, match="holds for 2 of 5 points"):
        extrapolate(d, gold, 1.0)
    with pytest.raises(UninformativeDataError, match="holds for 3 of 4 points"):  # one at d = 0
        extrapolate([0.0, 1.0, 1.5, 3.0], [0.0, 1.0, 0.8, 0.5], 4.0)


def test_features_of_students_world_are_scaled_draws():
    world = World(np.ones(2), degrees=5.0)
    phi = world.sample(3, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(3, 2))
    np.testing.assert_allclose(phi, normal * np.sqrt(3 / rng.chisquare(5, size=(3, 1))))
    # given z, each other direction has variance (degrees - 2 + z^2) / (degrees - 1)
    z, k = 1.7, 4
    other = World(np.eye(k)[0], penalty=0.3, degrees=6.0)
    squares = z**2 + (k - 1) * (6 - 2 + z**2) / (6 - 1)
    assert other.gold_of_moments(np.eye(k)[0], z, z**2) == pytest.approx(z - 0.3 * (squares - k))


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: distance([-0.1]), InvalidHyperparameterError, "k3"),
        (lambda: gao_rl([-1.0], 1, 1), InvalidHyperparameterError, "sqrt"),
        (lambda: gao_best_of_n([np.nan], 1, 1), InvalidHyperparameterError, "sqrt"),
        (lambda: fit_gao([1, 2], [1, 2]), UninformativeDataError, "three"),
        (lambda: fit_gao([1, 1, 2, 2], [1, 2, 3, 4]), UninformativeDataError, "three"),
        (lambda: fit_gao([0, 1, 2], [0, 1, 2]), UninformativeDataError, "three"),
        (lambda: fit_gao([1, 2, 3], [1, 2]), ShapeError, "one length"),
        (lambda: fit_gao([1, 2, 3], [1, np.nan, 2]), RewardError, "NaN"),
        (lambda: fit_gao([1, 2, 3], [1, 1, 1]), RewardError, "variance"),
        (lambda: fit_gao([1, 2, 3], [1, 2, 4], "bon"), InvalidHyperparameterError, "choose"),
        (lambda: r_squared([1, 2], [1]), ShapeError, "shape"),
        (lambda: extrapolate([1, 2, 3], [1, 2, 4], 100.0), UninformativeDataError, "beyond"),
        (lambda: extrapolate([1, 2, 3], [1, 2, 4], 4.0), UninformativeDataError, "three"),
        (lambda: World(np.zeros(3)), InvalidHyperparameterError, "not zero"),
        (lambda: World(np.ones(3), penalty=-1.0), InvalidHyperparameterError, "penalty"),
        (lambda: World(np.ones(3), degrees=2.0), InvalidHyperparameterError, "variance"),
        (lambda: World(np.ones(3)).alignment(np.zeros(3)), RewardError, "nothing"),
        (lambda: World(np.ones(3)).alignment(np.ones(4)), ShapeError, "proxy"),
        (lambda: moments_of_max([0.5]), InvalidHyperparameterError, "n >= 1"),
        (lambda: exact_best_of_n_curve(World(np.ones(3)), np.ones(3), [np.inf]),
         InvalidHyperparameterError, "n >= 1"),
        (lambda: tilted_curve(World(np.ones(3)), np.ones(3), 0.0),
         InvalidHyperparameterError, "price"),
        (lambda: tail_curve(World(np.ones(3)), np.ones(3), 1.0, 1.0),
         InvalidHyperparameterError, "between 0 and 1"),
        (lambda: tail_curve(World(np.ones(3)), np.ones(3), 90.0, 0.5),
         InvalidHyperparameterError, "mass"),
        (lambda: learn_proxy(World(np.ones(3)), 0, np.random.default_rng(0)),
         InvalidHyperparameterError, "comparison"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
