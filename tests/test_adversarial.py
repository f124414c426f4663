"""Adversarial imitation and IQ-Learn against closed forms, differences and brute force."""

import itertools

import numpy as np
import pytest

from irlbook.envs.doors import two_rooms
from irlbook.envs.garnet import garnet
from irlbook.envs.gridworld import gridworld
from irlbook.errors import (
    InfiniteDivergenceError,
    InvalidEnvironmentError,
    InvalidHyperparameterError,
    InvalidTrajectoryError,
    NotStochasticError,
    ShapeError,
    UnnormalisedOccupancyError,
)
from irlbook.imitation import adversarial as adv
from irlbook.imitation.airl import airl, airl_design, fit_discriminator
from irlbook.imitation.behavior_cloning import behavior_cloning
from irlbook.imitation.iq_learn import inverse_bellman, iq_learn, iq_objective
from irlbook.irl.maxent import causal_dual
from irlbook.mdp import TabularMDP, Trajectories, sample_trajectories
from irlbook.planning import (
    evaluate_policy,
    expected_return,
    policy_iteration,
    soft_policy_iteration,
)

ALL = pytest.mark.parametrize("which", adv.DIVERGENCES, ids=lambda d: d.name)


def _pair(rng, shape=(6, 3)):
    a, b = rng.dirichlet(np.ones(18), size=2)
    return a.reshape(shape), b.reshape(shape)


def _differences(f, x, step=1e-6):
    flat = x.reshape(-1)
    out = np.array(
        [
            (f((flat + step * e).reshape(x.shape)) - f((flat - step * e).reshape(x.shape)))
            / (2 * step)
            for e in np.eye(flat.size)
        ]
    )
    return out.reshape(x.shape)


@ALL
def test_f_and_its_closed_form_agree(which):
    """eq 8.1: sum rho_pi f(rho_E / rho_pi) is KL, 2 JS, KL; f(1) = 0 and f is convex."""
    expert, policy = _pair(np.random.default_rng(0))
    assert np.isclose((policy * which.f(expert / policy)).sum(), which.between(expert, policy))
    assert abs(which.f(np.array(1.0))) < 1e-15
    assert abs(which.between(expert, expert)) < 1e-15
    u = np.linspace(0.05, 4.0, 200)
    assert (np.diff(which.f(u), 2) > 0).all()
    assert np.allclose(np.gradient(which.f(u), u)[1:-1], which.slope(u)[1:-1], rtol=0.05, atol=0.01)


@ALL
def test_the_conjugate_is_the_supremum(which):
    """f*(t) = sup_u (u t - f(u)), by a fine grid; and eq 8.5, f*(f'(u)) = u f' - f."""
    u = np.exp(np.linspace(-9, 9, 400_001))
    for point in (0.3, 1.0, 2.5):
        t = which.slope(np.array(point))
        assert np.isclose(which.conjugate(t), (u * t - which.f(u)).max(), atol=1e-6)
        assert np.isclose(which.reward(np.array(point)), which.conjugate(t))


@ALL
def test_the_bound_is_tight_at_its_best_test_function_and_below_it_elsewhere(which):
    """eq 8.2: at T = f'(u) the variational bound is D_f."""
    rng = np.random.default_rng(1)
    expert, policy = _pair(rng)
    best = which.slope(expert / policy)
    exact = which.between(expert, policy)
    assert np.isclose(adv.variational_bound(best, expert, policy, which), exact)
    for scale in (1e-2, 0.1):
        for _ in range(10):
            other = best - scale * np.abs(rng.normal(size=best.shape))  # stays in f*'s domain
            assert adv.variational_bound(other, expert, policy, which) < exact


def test_the_best_discriminator():
    """eq 8.3: no other D has a smaller cross-entropy; its logit is log rho_E / rho_pi."""
    rng = np.random.default_rng(2)
    expert, policy = _pair(rng)
    best = adv.best_discriminator(expert, policy)
    scores = np.log(best) - np.log1p(-best)
    assert np.allclose(scores, np.log(expert / policy))
    loss, gradient = adv.discriminator_loss(scores, expert, policy)
    assert np.abs(gradient).max() < 1e-15
    assert all(
        adv.discriminator_loss(scores + 0.1 * rng.normal(size=scores.shape), expert, policy)[0]
        > loss
        for _ in range(20)
    )
    at = rng.normal(size=scores.shape)
    numeric = _differences(lambda z: adv.discriminator_loss(z, expert, policy)[0], at)
    assert np.allclose(adv.discriminator_loss(at, expert, policy)[1], numeric, atol=1e-8)
    assert adv.best_discriminator(np.zeros((1, 2)), np.zeros((1, 2))).tolist() == [[0.5, 0.5]]


def test_the_loss_says_the_divergence():
    """eq 8.4: the best loss is 2 log 2 - D_GAIL; 2 log 2 and accuracy 1/2 at a perfect copy."""
    expert, policy = _pair(np.random.default_rng(3))
    loss = adv.discriminator_loss(np.log(expert / policy), expert, policy)[0]
    assert np.isclose(loss, 2 * np.log(2) - adv.GAIL.between(expert, policy))
    assert np.isclose(adv.discriminator_loss(np.zeros((6, 3)), expert, expert)[0], 2 * np.log(2))
    assert np.allclose(adv.best_discriminator(expert, expert), 0.5)


@ALL
def test_the_reward_is_minus_the_derivative_of_the_divergence(which):
    """eq 8.5, by differences; its sign: where the expert goes more often it pays more."""
    expert, policy = _pair(np.random.default_rng(4))
    reward = adv.imitation_reward(expert, policy, which)

    def value(rho):
        return (rho * which.f(expert / rho)).sum()

    assert np.allclose(reward, -_differences(value, policy, 1e-7), atol=1e-5, rtol=1e-5)
    order = np.argsort((expert / policy).reshape(-1))
    assert (np.diff(reward.reshape(-1)[order]) > 0).all()


def test_the_printed_rewards_are_functions_of_the_discriminator():
    """eq 8.5: GAIL -log(1-D) - log 2, AIRL log D - log(1-D) - 1, FAIRL D / (1-D)."""
    expert, policy = _pair(np.random.default_rng(5))
    d = adv.best_discriminator(expert, policy)
    rewards = [adv.imitation_reward(expert, policy, which) for which in adv.DIVERGENCES]
    assert np.allclose(rewards[0], adv.discriminator_reward(d, "-log(1-D)") - np.log(2))
    assert np.allclose(rewards[1], adv.discriminator_reward(d, "logit") - 1)
    assert np.allclose(rewards[2], d / (1 - d))
    assert np.allclose(
        adv.discriminator_reward(d, "logit"),
        adv.discriminator_reward(d, "log D") + adv.discriminator_reward(d, "-log(1-D)"),
    )
    with pytest.raises(InvalidHyperparameterError, match="form"):
        adv.discriminator_reward(d, "log(1-D)")


@ALL
def test_the_loop_falls_and_finds_the_expert(which):
    """eq 8.6, five worlds: D_f never rises and ends at 0, the policy is the expert's."""
    for seed in range(5):
        world = garnet(8, 3, 3, np.random.default_rng(seed), discount=0.9)
        expert = soft_policy_iteration(world, beta=0.5).policy
        rho = adv.normalised_occupancy(world, expert)
        found = adv.match_occupancy(world, rho, which)
        assert (np.diff(found.divergences) < 0).all()
        assert found.report.converged and found.divergences[-1] < 1e-8
        assert np.abs(found.policy - expert).max() < 1e-3
        assert abs(found.losses[-1] - 2 * np.log(2)) < 1e-7


def test_the_loop_stops_where_it_says_it_stops():
    """After the steps that are allowed; else at the first D_f below the tolerance, or the first
    that has fallen by less than it in ten steps. The report says which, and after how many."""
    world = garnet(8, 3, 3, np.random.default_rng(0), discount=0.9)
    rho = adv.normalised_occupancy(world, soft_policy_iteration(world, beta=0.5).policy)
    cut = adv.match_occupancy(world, rho, max_iterations=3, tolerance=0.0)
    assert len(cut.divergences) == len(cut.losses) == 4
    assert cut.report.iterations == 3 and not cut.report.converged
    assert cut.report.residual == cut.divergences[-1] and cut.report.tolerance == 0.0
    assert cut.report.method == "match_occupancy GAIL"
    below = adv.match_occupancy(world, rho, tolerance=1e-4)
    assert below.report.converged and below.divergences[-1] <= 1e-4 < below.divergences[-2]
    assert below.report.iterations == len(below.divergences) - 1
    known = adv.match_occupancy(world, rho, initial=below.policy, tolerance=1e-3)
    assert known.report.converged and known.report.iterations == 0  # nothing was left to do
    np.testing.assert_allclose(known.policy, below.policy)
    np.testing.assert_allclose(
        known.reward, adv.imitation_reward(rho, below.occupancy, adv.GAIL), atol=1e-12
    )
    # An expert that no policy can be: D_f cannot come near 0, and its fall ends the loop.
    away = adv.match_occupancy(world, np.full((8, 3), 1 / 24), tolerance=1e-4)
    falls = away.divergences[:-10] - away.divergences[10:]
    assert away.report.converged and away.divergences[-1] > 1e-4
    assert falls[-1] <= 1e-4 and (falls[:-1] > 1e-4).all()


def test_a_step_grows_after_it_was_downhill_and_never_moves_far():
    """eq 8.6: log pi moves by step times advantage; at most by 4 each time, where u is huge."""
    world = TabularMDP.create(np.ones((1, 3, 1)), np.zeros(1), discount=0.5)
    rho = np.array([[0.3, 0.4, 0.3]])

    def steps(expert, which, n, initial=None):
        """The step sizes of the first n steps, from the policies after 0, ..., n of them."""
        runs = [
            adv.match_occupancy(
                world, expert, which, max_iterations=k, tolerance=0.0, initial=initial
            )
            for k in range(n + 1)
        ]
        for before, after in itertools.pairwise(runs):
            paid = adv.imitation_reward(expert, before.occupancy, which)
            advantage = adv.advantages(world, before.policy, paid)
            moved = np.log(after.policy) - np.log(before.policy)
            yield np.ptp(moved) / np.ptp(advantage), np.abs(advantage).max()

    (first, _), (second, _), (third, _) = steps(rho, adv.GAIL, 3)
    assert first == pytest.approx(1.0) and second == pytest.approx(1.6)
    assert third == pytest.approx(1.6**2)
    rare = np.array([[1e-4, 0.5, 0.4999]])
    ((step, largest),) = steps(np.array([[0.9, 0.05, 0.05]]), adv.FAIRL, 1, initial=rare)
    assert largest > 1000 and step * largest <= 4.0 + 1e-9


def test_the_wrong_sign_of_the_reward_is_caught_by_the_loop(monkeypatch):
    """A planted bug: paid for what the expert does not do, no step is downhill."""
    world = garnet(8, 3, 3, np.random.default_rng(0), discount=0.9)
    rho = adv.normalised_occupancy(world, soft_policy_iteration(world, beta=0.5).policy)
    right = adv.imitation_reward
    monkeypatch.setattr(adv, "imitation_reward", lambda *args: -right(*args))
    found = adv.match_occupancy(world, rho)
    assert len(found.divergences) == 1 and found.divergences[0] > 0.01
    assert found.report.converged and found.report.iterations == 0  # it takes this for a minimum


@ALL
def test_the_gradient_of_a_policy_class(which):
    """eq 8.7 against differences, in a world with moves."""
    rng = np.random.default_rng(6)
    world = garnet(6, 3, 2, rng, discount=0.8)
    expert = adv.normalised_occupancy(world, rng.dirichlet(np.ones(3), size=6))
    features, weights = rng.normal(size=(6, 3, 4)), rng.normal(size=4)
    _, gradient = adv.class_divergence(weights, world, features, expert, which)
    numeric = _differences(
        lambda w: adv.class_divergence(w, world, features, expert, which)[0], weights
    )
    assert np.allclose(gradient, numeric, atol=1e-7)


def bimodal():
    """One state, 41 actions on a line, an expert with two humps, policies with one."""
    x = np.linspace(-1, 1, 41)
    world = TabularMDP.create(np.ones((1, 41, 1)), np.zeros(1), discount=0.5)
    expert = 0.6 * np.exp(-((x - 0.5) ** 2) / 0.02) + 0.4 * np.exp(-((x + 0.5) ** 2) / 0.02)
    return world, x, (expert / expert.sum())[None], np.stack([x, x**2], -1)[None]


def test_forward_kl_covers_and_reverse_kl_seeks():
    """FAIRL takes the expert's mean and width (moment matching); AIRL and GAIL the larger hump."""
    world, x, expert, features = bimodal()
    starts = [np.array([2 * m * c, -c]) for m in (-0.5, 0.0, 0.5) for c in (2.0, 30.0)]
    mean, mass = {}, {}
    for which in adv.DIVERGENCES:
        fits = [adv.fit_policy_class(world, features, expert, which, initial=s) for s in starts]
        policy = adv.softmax_policy(min(fits, key=lambda fit: fit[1])[0], features)[0]
        mean[which.name] = policy @ x
        mass[which.name] = policy[np.abs(x) < 0.2].sum()
        if which is adv.FAIRL:
            assert np.allclose(policy @ np.stack([x, x**2], -1), expert[0] @ features[0], atol=1e-5)
    assert abs(mean["FAIRL"] - expert[0] @ x) < 1e-5 and mass["FAIRL"] > 0.2
    assert abs(mean["AIRL"] - 0.5) < 0.01 and mass["AIRL"] < 0.01
    assert abs(mean["GAIL"] - 0.5) < 0.01


def test_the_survival_bias():
    """Where episodes end, a discriminator that knows nothing still says what to do."""
    world = gridworld(3, 3, start=(0, 0), discount=0.95)
    went = {}
    for form in ("log D", "-log(1-D)", "logit"):
        pay = np.where(world.terminal, 0.0, adv.discriminator_reward(np.array(0.5), form))
        policy = policy_iteration(world.with_reward(pay)).policy
        ends = world.with_reward(np.where(world.terminal, 0.0, 1.0))
        went[form] = evaluate_policy(ends, policy)[0]  # discounted steps before the end
    assert np.isclose(went["log D"], (1 - 0.95**4) / 0.05)  # the shortest way: four steps
    assert np.isclose(went["-log(1-D)"], 1 / 0.05)  # never
    # With an absorbing state all three forms pay the same everywhere: no policy is preferred.
    endless = adv.with_absorbing_state(world)
    for form in ("log D", "-log(1-D)"):
        pay = np.full(endless.n_states, float(adv.discriminator_reward(np.array(0.5), form)))
        values = evaluate_policy(endless.with_reward(pay), np.full((9, 5), 0.2))
        assert np.allclose(values, pay[0] / 0.05)


def test_an_absorbing_state_changes_no_value():
    world = gridworld(3, 3, start=(0, 0), slip=0.2, discount=0.9)
    policy = np.random.default_rng(7).dirichlet(np.ones(5), size=9)
    endless = adv.with_absorbing_state(world)
    assert np.allclose(evaluate_policy(world, policy), evaluate_policy(endless, policy))
    assert np.isclose(adv.normalised_occupancy(endless, policy).sum(), 1.0)
    with pytest.raises(UnnormalisedOccupancyError, match="with_absorbing_state"):
        adv.normalised_occupancy(world, policy)
    with pytest.raises(UnnormalisedOccupancyError, match="discount 1"):
        adv.normalised_occupancy(world.with_discount(1.0), policy)


TRANSFER = [(4, 5, 0, 4, (3, 4)), (4, 5, 1, 3, (2, 0)), (4, 4, 3, 0, (3, 3)), (6, 4, 0, 3, (5, 0)),
            (4, 6, 2, 5, (3, 2))]  # fmt: skip


def test_the_state_only_reward_transfers_and_the_other_does_not():
    """Fu et al. 2018, table 1, in five small worlds; eq 8.9: g is r / beta, h is V / beta."""
    for height, width, door, moved, goal in TRANSFER:
        here = two_rooms(height, width, door=door, goal=goal, anywhere=True)
        there = two_rooms(height, width, door=moved, goal=goal)
        plan = soft_policy_iteration(here, beta=0.5)
        expert = adv.normalised_occupancy(here, plan.policy)
        best = expected_return(there, policy_iteration(there).policy)
        state = airl(here, expert, state_only=True, iterations=100)
        pair = airl(here, expert, state_only=False, iterations=100)
        assert max(state.divergences[-1], pair.divergences[-1]) < 2e-3
        assert np.ptp(state.reward[:, 0] * 0.5 - here.reward[:, 0]) < 0.1
        assert np.ptp(state.potential * 0.5 - plan.values) < 0.05
        assert np.abs(pair.reward - plan.log_policy).max() < 0.2
        got = [
            expected_return(there, policy_iteration(there.with_reward(r.reward)).policy)
            for r in (state, pair)
        ]
        assert np.isclose(got[0], best) and got[1] < 0.1 * best
        assert expected_return(there, pair.policy) < 0.1 * best  # the policy itself, carried over


def test_the_discriminator_of_airl():
    """eq 8.8: Newton's solution has no slope left; without g(s) it is log u + log pi."""
    rng = np.random.default_rng(8)
    world = garnet(5, 3, 2, rng, discount=0.8)
    policy = rng.dirichlet(np.ones(3), size=5)
    occupancy = adv.normalised_occupancy(world, policy)
    expert = adv.normalised_occupancy(world, rng.dirichlet(np.ones(3), size=5))
    f = fit_discriminator(
        airl_design(world, False).toarray(), np.log(policy), expert, occupancy, np.zeros(15),
        ridge=1e-12, steps=50,
    )  # fmt: skip
    assert np.allclose(f.reshape(5, 3), np.log(policy) + np.log(expert / occupancy), atol=1e-4)
    design = airl_design(world, True).toarray()
    g, h = rng.normal(size=(2, 5))
    by_hand = g[:, None] + 0.8 * (world.dense() @ h) - h[:, None]
    assert np.allclose((design @ np.concatenate([g, h])).reshape(5, 3), by_hand)


def test_two_rooms():
    world = two_rooms(4, 3, door=1, goal=(3, 0), discount=0.5)
    step = world.dense().argmax(axis=2)
    assert step[4].tolist() == [4, 1, 5, 7, 3] and step[7].tolist() == [7, 4, 8, 10, 6]  # the door
    assert step[3, 3] == 3 and step[6, 1] == 6  # the wall
    assert world.reward[9].tolist() == [1.0] * 5 and world.reward.sum() == 5.0
    assert world.start[:6].tolist() == [1 / 6] * 6
    with pytest.raises(InvalidEnvironmentError, match="door"):
        two_rooms(4, 3, door=3, goal=(3, 0))
    with pytest.raises(InvalidEnvironmentError, match="lower room"):
        two_rooms(4, 3, door=0, goal=(1, 0))


def counters():
    """Two states; staying pays 1, crossing costs 4. The start is drawn: nobody chooses it."""
    moves = np.zeros((2, 2, 2))
    moves[0, 0, 0] = moves[1, 0, 1] = moves[0, 1, 1] = moves[1, 1, 0] = 1.0
    return TabularMDP.create(moves, np.array([[1.0, -4.0]] * 2), start=[0.5, 0.5], discount=0.95)


def test_empirical_occupancy_is_discounted_and_smoothed():
    world = counters()
    demos = Trajectories.from_list([([0, 0, 1], [0, 1]), ([1, 1], [0])])
    counts = np.array([[1.0, 0.95], [1.0, 0.0]])
    share = counts / 2.95
    assert np.allclose(adv.empirical_occupancy(demos, world), share)
    smooth = adv.empirical_occupancy(demos, world, smoothing=0.2)
    assert np.allclose(smooth, 0.8 * share + 0.2 / 4)
    for bad in (-1e-9, 1.0):
        with pytest.raises(InvalidHyperparameterError, match="smoothing must lie in"):
            adv.empirical_occupancy(demos, world, smoothing=bad)


def test_an_occupancy_sums_to_1_to_rounding_only():
    world = counters()
    good = np.array([[0.5, 0.0], [0.25, 0.25]])
    adv.check_occupancy(world, good)
    adv.check_occupancy(world, good * (1 + 5e-7))
    for factor in (1 + 2e-6, 1 - 2e-6, np.nan):
        with pytest.raises(NotStochasticError, match="sums to 1"):
            adv.check_occupancy(world, good * factor)
    with pytest.raises(ShapeError, match=r"shape \(4,\); expected \(S, A\) = \(2, 2\)"):
        adv.check_occupancy(world, good.reshape(-1))


def test_ratios_and_bounds_where_one_of_the_two_never_is():
    """u = 1 where neither is, 0 where only the policy is; infinite where only the expert is."""
    expert, policy = np.array([[0.5, 0.0, 0.0, 0.5]]), np.array([[0.25, 0.25, 0.0, 0.5]])
    assert adv.density_ratio(expert, policy).tolist() == [[2.0, 0.0, 1.0, 1.0]]
    assert adv.best_discriminator(expert, policy)[0, 1:3].tolist() == [0.0, 0.5]
    assert np.isfinite(adv.imitation_reward(expert, policy, adv.GAIL)).all()
    with pytest.raises(InfiniteDivergenceError, match="visits state 0, action 1, the expert never"):
        adv.imitation_reward(expert, policy, adv.AIRL)
    with pytest.raises(InfiniteDivergenceError, match="seen at state 0, action 1, where"):
        adv.density_ratio(policy, expert)
    test = np.array([[-1.0, -np.inf, np.nan, 0.5]])  # T where it counts for nobody may be anything
    test[0, 1] = -2.0
    bound = (
        0.5 * -1.0 + 0.5 * 0.5 - (0.25 * np.exp(-2.0) + 0.25 * np.exp(-3.0) + 0.5 * np.exp(-0.5))
    )
    assert adv.variational_bound(test, expert, policy, adv.FAIRL) == pytest.approx(bound)


def test_a_mirror_step_from_a_policy_that_never_does_something():
    """What has probability 0 keeps it to rounding, and no step overflows."""
    stepped = adv.mirror_step(np.array([[1.0, 0.0]]), np.array([[0.0, 5.0]]), 1.0)
    assert np.allclose(stepped, [[1.0, 0.0]])
    far = adv.mirror_step(np.array([[0.5, 0.5]]), np.array([[0.0, 1e4]]), 1.0)
    assert far.tolist() == [[0.0, 1.0]]
    assert np.allclose(adv.softmax_policy([1e4], np.array([[[0.0], [1.0]]])), [[0.0, 1.0]])


def test_airl_says_what_it_did():
    """D_KL before each step and at the end; no potential where g knows the action."""
    world = counters()
    expert = adv.normalised_occupancy(world, np.full((2, 2), 0.5) + [[0.2, -0.2], [0.1, -0.1]])
    uniform = adv.normalised_occupancy(world, np.full((2, 2), 0.5))
    for state_only in (True, False):
        found = airl(world, expert, state_only=state_only, iterations=2)
        assert found.divergences.shape == (3,)
        assert found.divergences[0] == pytest.approx(adv.AIRL.between(expert, uniform))
        last = adv.normalised_occupancy(world, found.policy)
        assert found.divergences[-1] == pytest.approx(adv.AIRL.between(expert, last))
        assert found.reward.shape == (2, 2) and found.potential.shape == (2,)
        assert (np.ptp(found.reward, axis=1) == 0).all() == state_only
        assert found.potential.any() == state_only
    airl(world, expert, iterations=1, step=1e-9, ridge=1e-9)
    for bad in ({"iterations": 0}, {"step": 0.0}, {"ridge": 0.0}):
        with pytest.raises(InvalidHyperparameterError, match=next(iter(bad))):
            airl(world, expert, **bad)


def test_one_step_of_airl_is_a_mirror_step_of_its_own_reward():
    """With g(s, a) and an exact fit, f - log pi is log rho_E / rho_pi: AIRL's reward and 1."""
    world = counters()
    expert = adv.normalised_occupancy(world, np.array([[0.7, 0.3], [0.6, 0.4]]))
    policy = np.full((2, 2), 0.5)
    ratio = expert / adv.normalised_occupancy(world, policy)
    advantage = adv.advantages(world, policy, np.log(ratio))
    found = airl(world, expert, state_only=False, iterations=1, step=0.25)
    assert np.allclose(found.policy, adv.mirror_step(policy, advantage, 0.25), atol=1e-6)
    far = airl(world, expert, state_only=False, iterations=1, step=1e9)
    capped = adv.mirror_step(policy, advantage, 4.0 / np.abs(advantage).max())
    assert np.allclose(far.policy, capped, atol=1e-6)


def test_the_ridge_keeps_the_discriminator_from_infinity():
    """Separable pairs: without a price the parameters would grow; at the optimum both balance."""
    x, expert, policy = np.eye(2), np.array([1.0, 0.0]), np.array([0.0, 1.0])
    for ridge in (0.1, 1.0):
        w = fit_discriminator(x, np.zeros(2), expert, policy, np.zeros(2), ridge=ridge, steps=100)
        slope = [1 / (1 + np.exp(-w[0])) - 1, 1 / (1 + np.exp(-w[1]))]
        assert np.allclose(slope + ridge * w, 0.0, atol=1e-8)


def test_the_case_where_cloning_wins():
    """Four demonstrations: the clone is the expert, GAIL copies the luck of their first states."""
    world = counters()
    expert = policy_iteration(world).policy
    wins = ties = 0
    for seed in range(12):
        demos = sample_trajectories(world, expert, 4, 60, np.random.default_rng(seed))
        rho = adv.empirical_occupancy(demos, world)
        if (rho.sum(axis=1) == 0).any():
            continue
        clone, gail = (
            expected_return(world, p)
            for p in (behavior_cloning(demos, world), adv.match_occupancy(world, rho).policy)
        )
        assert np.isclose(clone, 20.0)
        balanced = np.isclose(rho.sum(axis=1)[0], 0.5)
        ties += balanced
        wins += gail < clone - 1.0
        assert balanced == np.isclose(gail, clone, atol=0.01)
    assert wins >= 7 and wins + ties >= 10


def test_iq_learn_gradient_and_stationarity():
    """eq 8.10-8.12: differences; r of a Q has that Q as soft optimum; rho_pi = rho_E phi'(r)."""
    rng = np.random.default_rng(9)
    world = garnet(6, 3, 2, rng, discount=0.9)
    expert_policy = soft_policy_iteration(world).policy
    expert = adv.normalised_occupancy(world, expert_policy)
    q = rng.normal(size=(6, 3))
    for alpha, beta in ((0.5, 1.0), (2.0, 0.4), (np.inf, 1.0)):
        numeric = _differences(
            lambda x, a=alpha, b=beta: iq_objective(x, world, expert, alpha=a, beta=b)[0], q
        )
        gradient = iq_objective(q, world, expert, alpha=alpha, beta=beta)[1]
        assert np.allclose(gradient, numeric, atol=1e-8)
    reward = inverse_bellman(q, world, 0.4)
    assert np.allclose(soft_policy_iteration(world.with_reward(reward), beta=0.4).q, q, atol=1e-6)
    gaps = []
    for alpha in (0.5, 5.0, 500.0):
        found = iq_learn(world, expert, alpha=alpha)
        rho = adv.normalised_occupancy(world, found.policy)
        assert np.allclose(rho, expert * (1 - found.reward / (2 * alpha)), atol=1e-6)
        gaps.append(np.abs(found.policy - expert_policy).max())
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 1e-2
    # Concave: the middle is never below the chord.
    a, b = rng.normal(size=(2, 6, 3))
    ends = [iq_objective(x, world, expert, alpha=0.5)[0] for x in (a, b, (a + b) / 2)]
    assert ends[2] >= (ends[0] + ends[1]) / 2


def test_iq_learn_reports_its_maximum():
    world = garnet(5, 2, 2, np.random.default_rng(11), discount=0.8)
    expert = adv.normalised_occupancy(world, soft_policy_iteration(world).policy)
    found = iq_learn(world, expert, alpha=0.7, beta=0.5)
    value, slope = iq_objective(found.q, world, expert, alpha=0.7, beta=0.5)
    assert found.objective == pytest.approx(value) and found.gradient < 1e-6
    assert found.gradient == pytest.approx(np.abs(slope).max(), abs=1e-12)
    assert np.allclose(found.reward, inverse_bellman(found.q, world, 0.5))
    weights = np.exp(found.q / 0.5)
    assert np.allclose(found.policy, weights / weights.sum(axis=1, keepdims=True))
    early = iq_learn(world, expert, alpha=0.7, beta=0.5, max_iterations=2)
    assert early.objective < found.objective and early.gradient > 1e-4
    for bad in ({"alpha": 0.0}, {"beta": 0.0}):
        with pytest.raises(InvalidHyperparameterError, match=next(iter(bad))):
            iq_learn(world, expert, **bad)


def test_the_reward_of_a_soft_optimum_is_found_again_where_episodes_end():
    """r = Q - gamma P V with V = 0 after the end, eq 8.10; and J's slope by differences."""
    world = gridworld(2, 3, start=(0, 0), discount=0.9)
    plan = soft_policy_iteration(world, beta=0.5, tolerance=1e-12)
    alive = ~world.terminal
    assert np.allclose(inverse_bellman(plan.q, world, 0.5)[alive], world.reward[alive])
    assert np.allclose(
        inverse_bellman(soft_policy_iteration(world, tolerance=1e-12).q, world)[alive],
        world.reward[alive],
    )
    rng = np.random.default_rng(12)
    q, rho = rng.normal(size=(6, 5)), rng.dirichlet(np.ones(30)).reshape(6, 5)
    numeric = _differences(lambda x: iq_objective(x, world, rho, alpha=0.5, beta=0.5)[0], q)
    assert np.allclose(iq_objective(q, world, rho, alpha=0.5, beta=0.5)[1], numeric, atol=1e-8)
    with pytest.raises(UnnormalisedOccupancyError, match="with_absorbing_state"):
        iq_learn(world, rho)


def test_iq_learn_without_regulariser_is_maximum_entropy():
    """J(Q) = -(1 - gamma) g(w): the causal dual of chapter 6 with one feature a pair."""
    rng = np.random.default_rng(10)
    world = garnet(5, 2, 2, rng, discount=0.9)
    expert = adv.normalised_occupancy(world, rng.dirichlet(np.ones(2), size=5))
    reward = rng.normal(size=(5, 2))
    q = soft_policy_iteration(world.with_reward(reward), tolerance=1e-12).q
    features = np.eye(10).reshape(5, 2, 10)
    dual, slope = causal_dual(reward.reshape(-1), world, features, expert.reshape(-1) / 0.1)
    assert np.isclose(iq_objective(q, world, expert)[0], -0.1 * dual, atol=1e-9)
    assert slope.shape == (10,)


def test_bad_input_is_named():
    world = two_rooms(2, 2, door=0, goal=(1, 1))
    uniform = np.full((4, 5), 0.2)
    good = adv.normalised_occupancy(world, uniform)
    with pytest.raises(InvalidTrajectoryError):
        adv.empirical_occupancy(Trajectories.from_list([([0, 3], [0])]), world)
    with pytest.raises(InvalidTrajectoryError):
        adv.empirical_occupancy(Trajectories.from_list([([0], [])]), world)
    with pytest.raises(InvalidHyperparameterError, match="smoothing"):
        adv.empirical_occupancy(Trajectories.from_list([([0, 0], [0])]), world, smoothing=1.0)
    with pytest.raises(NotStochasticError, match="sums to 1"):
        adv.match_occupancy(world, 2 * good)
    demos = adv.empirical_occupancy(Trajectories.from_list([([0, 0], [0])]), world)
    with pytest.raises(InfiniteDivergenceError, match="smoothing"):
        adv.match_occupancy(world, demos, adv.AIRL)
    smooth = adv.empirical_occupancy(Trajectories.from_list([([0, 0], [0])]), world, smoothing=0.1)
    assert np.isfinite(adv.match_occupancy(world, smooth, adv.AIRL).divergences).all()
    with pytest.raises(InfiniteDivergenceError, match="state 0, action 1"):
        stay = np.zeros((4, 5))
        stay[:, 0] = 1.0
        adv.density_ratio(good, adv.normalised_occupancy(world, stay))
    with pytest.raises(InvalidHyperparameterError):
        iq_learn(world, good, alpha=0.0)
    with pytest.raises(ShapeError):
        iq_learn(world, good[:2])
    with pytest.raises(InvalidHyperparameterError):
        airl(world, good, iterations=0)


def test_paying_minus_f_is_no_gradient():
    """A planted bug: -u log u for forward KL. Near the expert its step climbs; u's descends."""
    for seed in range(5):
        world = garnet(8, 3, 3, np.random.default_rng(seed), discount=0.9)
        expert_policy = soft_policy_iteration(world, beta=0.5).policy
        expert = adv.normalised_occupancy(world, expert_policy)
        near = 0.9 * expert_policy + 0.1 / 3
        u = adv.density_ratio(expert, adv.normalised_occupancy(world, near))
        before = adv.FAIRL.between(expert, adv.normalised_occupancy(world, near))
        after = [
            adv.FAIRL.between(
                expert,
                adv.normalised_occupancy(
                    world, adv.mirror_step(near, adv.advantages(world, near, reward), 1e-3)
                ),
            )
            for reward in (u, -u * np.log(u))
        ]
        assert after[0] < before < after[1]
