"""Deep MaxEnt IRL against finite differences, the linear solver, and failures that must be loud."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from irlbook import planning
from irlbook.envs import binaryworld, gridworld
from irlbook.errors import (
    CollapsedRewardError,
    InvalidHyperparameterError,
    InvalidTrajectoryError,
    NotConvergedError,
    ShapeError,
    UnreachableFeaturesError,
    UnsupportedModelError,
)
from irlbook.irl.deep_maxent import (
    DeepMaxEntConfig,
    OccupancyDual,
    fit_deep_max_ent,
    reward_network,
    standardise,
)
from irlbook.irl.maxent import causal_dual, fit_max_causal_ent
from irlbook.mdp import Trajectories, sample_trajectories

T = 6


@pytest.fixture
def world():
    """A noisy discounted grid, features (S, 3), and the occupancy of a noisy expert."""
    mdp = gridworld(3, 4, goals={}, slip=0.2, discount=0.9)
    features = np.random.default_rng(0).normal(size=(12, 3))
    plan = planning.soft_backward_induction(mdp.with_reward(features @ [1.0, -0.5, 0.3]), T)
    return mdp, features, planning.occupancy_measure(mdp, plan.policy, T)


def flat_gradient(network):
    return torch.cat([p.grad.reshape(-1) for p in network.parameters()]).numpy()


def numeric_gradient(network, loss, step=1e-5):
    out = []
    for p in network.parameters():
        for i in range(p.numel()):
            with torch.no_grad():
                entry = p.view(-1)
                keep = entry[i].item()
                entry[i] = keep + step
                high = float(loss())
                entry[i] = keep - step
                low = float(loss())
                entry[i] = keep
            out.append((high - low) / (2 * step))
    return np.array(out)


@pytest.mark.parametrize("horizon", [T, None])
@pytest.mark.parametrize("on_states", [True, False])
def test_the_occupancy_gradient_is_that_of_the_dual_in_theta(world, horizon, on_states):
    mdp, features, _ = world
    plan = planning.soft_policy_iteration(mdp.with_reward(features[:, 0]))
    expert = planning.occupancy_measure(mdp, plan.policy, horizon)
    inputs = features if on_states else np.random.default_rng(1).normal(size=(12, 5, 2))
    network = reward_network(inputs.shape[-1], (4,), seed=3)
    dual = OccupancyDual(mdp, expert, on_states=on_states, horizon=horizon, beta=0.7)

    def loss():
        return dual(network(torch.from_numpy(inputs)).squeeze(-1))

    loss().backward()
    numeric = numeric_gradient(network, loss)
    np.testing.assert_allclose(flat_gradient(network), numeric, atol=1e-6)
    assert np.abs(numeric).max() > 0.05
    # The planted bug of a turned sign is told apart.
    assert np.abs(-flat_gradient(network) - numeric).max() > 0.05


def planted_visits(mdp, reward, bug):
    """Visits (S,) of the model with one silent bug of public code, or none."""
    P, discount = mdp.dense(), mdp.discount
    values, policies = np.zeros(mdp.n_states), []
    for _ in range(T):
        q = reward[:, None] + (1.0 if bug == "no discount in the plan" else discount) * P @ values
        soft = np.log(np.exp(q - q.max()).sum(axis=1)) + q.max()
        policies.append(np.exp(q - soft[:, None]))
        values = q.max(axis=1) if bug == "hard max" else soft
    here, visits = mdp.start.copy(), np.zeros(mdp.n_states)
    for pi in policies if bug == "time reversed" else policies[::-1]:
        visits += here
        flow = np.einsum("s,sa,sap->p", here, pi, P)
        here = flow * (1.0 if bug == "no discount in the visits" else discount)
    return visits


@pytest.mark.parametrize(
    "bug",
    [None, "hard max", "no discount in the plan", "no discount in the visits", "time reversed"],
)
def test_finite_differences_of_the_dual_catch_each_planted_bug(world, bug):
    mdp, features, expert = world
    reward = 1.5 * features @ np.array([1.0, -1.0, 0.5])
    dual = OccupancyDual(mdp, expert, horizon=T)
    push = 1e-5 * np.eye(12)
    numeric = np.array(
        [
            (dual(torch.from_numpy(reward + e)) - dual(torch.from_numpy(reward - e))).item() / 2e-5
            for e in push
        ]
    )
    error = np.abs(planted_visits(mdp, reward, bug) - expert.sum(axis=1) - numeric).max()
    assert error < 1e-6 if bug is None else error > 0.01


def test_the_dual_of_a_table_is_the_linear_dual(world):
    mdp, features, expert = world
    w = np.array([0.4, 0.2, -0.6])
    ours = float(OccupancyDual(mdp, expert, horizon=T)(torch.from_numpy(features @ w)))
    theirs, _ = causal_dual(w, mdp, features, features.T @ expert.sum(axis=1), horizon=T)
    assert ours == pytest.approx(theirs, abs=1e-10)


def test_a_network_without_hidden_layers_is_the_linear_solver(world):
    mdp, features, expert = world
    network = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    config = DeepMaxEntConfig(weight_decay=0.05, reward_decay=0.0, tolerance=1e-7)
    deep = fit_deep_max_ent(mdp, features, expert, config, network=network, horizon=T, beta=0.8)
    mu = features.T @ expert.sum(axis=1)
    linear = fit_max_causal_ent(mdp, features, mu, horizon=T, beta=0.8, l2=0.05, tolerance=1e-8)
    np.testing.assert_allclose(
        network.weight.detach().numpy()[0], linear.weights, atol=1e-5, rtol=0
    )
    np.testing.assert_allclose(deep.reward, linear.reward, atol=1e-5)
    np.testing.assert_allclose(deep.policy, linear.policy, atol=1e-5)
    assert deep.dual == pytest.approx(linear.dual, abs=1e-8)


def test_renumbering_the_states_renumbers_the_reward(world):
    mdp, features, expert = world
    order = np.random.default_rng(2).permutation(12)
    moved = mdp.permute(order, np.arange(5))
    config = DeepMaxEntConfig(hidden=(6,), tolerance=1e-5)
    one = fit_deep_max_ent(mdp, features, expert, config, horizon=T)
    two = fit_deep_max_ent(moved, features[order], expert[order], config, horizon=T)
    np.testing.assert_allclose(two.reward, one.reward[order], atol=1e-4)


def test_one_seed_one_result_and_the_trace_is_honest(world):
    mdp, features, expert = world
    config = DeepMaxEntConfig(hidden=(6,))
    one = fit_deep_max_ent(mdp, features, expert, config, horizon=T)
    two = fit_deep_max_ent(mdp, features, expert, config, horizon=T)
    np.testing.assert_array_equal(one.reward, two.reward)
    assert one.trace.shape == (one.report.iterations + 1, 2)
    assert (np.diff(one.trace[:, 0]) <= 1e-12).all()
    assert one.trace[-1, 1] == pytest.approx(one.report.residual, rel=1e-9)
    gap = planning.occupancy_measure(mdp, one.policy, T).sum(axis=1) - expert.sum(axis=1)
    assert one.occupancy_gap == pytest.approx(np.abs(gap).max(), abs=1e-10)


def test_deep_finds_a_reward_that_no_linear_one_can_express():
    made = binaryworld(8, rng=np.random.default_rng(0), discount=0.9)
    policy = planning.soft_backward_induction(made.mdp, 15, beta=0.2).policy
    expert = planning.occupancy_measure(made.mdp, policy, 15)
    best = made.mdp.start @ planning.backward_induction(made.mdp, 15).values[0]

    def lost(reward):
        greedy = planning.backward_induction(made.mdp.with_reward(reward), 15).policy
        return best - planning.expected_return(made.mdp, greedy, 15)

    phi = standardise(made.features)
    deep = fit_deep_max_ent(made.mdp, phi, expert, horizon=15, beta=0.2, strict=False)
    mu = phi.T @ expert.sum(axis=1)
    linear = fit_max_causal_ent(made.mdp, phi, mu, horizon=15, beta=0.2, l2=0.1)
    assert lost(deep.reward) < 0.25 * lost(linear.reward)


# --- failures must be loud ------------------------------------------------------------------------


def test_mixed_lengths_are_refused_with_the_reason(world):
    mdp, features, _ = world
    policy = np.full((12, 5), 0.2)
    rng = np.random.default_rng(0)
    pairs = [next(iter(sample_trajectories(mdp, policy, 1, n, rng))) for n in (1, 6, 51)]
    occupancy = Trajectories.from_list(pairs).counts(12, 5, mdp.discount)
    with pytest.raises(UnreachableFeaturesError, match="Cut the demonstrations to one length"):
        fit_deep_max_ent(mdp, features, occupancy, horizon=51)
    with pytest.raises(UnreachableFeaturesError, match="every policy makes 10"):
        fit_deep_max_ent(mdp, features, occupancy)
    # What the check prevents: a constant reward drifts for ever, and its gradient never falls.
    drift = occupancy.sum() - planning.occupancy_measure(mdp, policy, 51).sum()
    for level in (0.0, 5.0):
        ones = np.ones((12, 1))
        _, gradient = causal_dual([level], mdp, ones, [occupancy.sum()], horizon=51)
        assert gradient[0] == pytest.approx(-drift, abs=1e-8)


def test_a_dead_network_is_reported(world):
    mdp, features, expert = world
    dead = torch.nn.Sequential(
        torch.nn.Linear(3, 4, dtype=torch.float64),
        torch.nn.ReLU(),
        torch.nn.Linear(4, 1, bias=False, dtype=torch.float64),
    )
    with torch.no_grad():
        dead[0].bias.fill_(-100.0)
    config = DeepMaxEntConfig(weight_decay=0.0)  # a decay would pull the bias back
    with pytest.raises(CollapsedRewardError, match="dead ReLU"):
        fit_deep_max_ent(mdp, features, expert, config, network=dead, horizon=T)
    quiet = fit_deep_max_ent(mdp, features, expert, config, network=dead, horizon=T, strict=False)
    assert quiet.occupancy_gap > 0.01


def test_constant_features_are_reported(world):
    mdp, _, expert = world
    with pytest.raises(CollapsedRewardError, match="same in all states"):
        fit_deep_max_ent(mdp, np.ones((12, 2)), expert, horizon=T)


def test_stopping_early_is_reported(world):
    mdp, features, expert = world
    with pytest.raises(NotConvergedError, match="stopped after 1 iterations"):
        fit_deep_max_ent(mdp, features, expert, DeepMaxEntConfig(max_iterations=1), horizon=T)


def test_bad_input_is_named(world):
    mdp, features, expert = world
    with pytest.raises(ShapeError, match="features have shape"):
        fit_deep_max_ent(mdp, features[:5], expert, horizon=T)
    with pytest.raises(ShapeError, match="expert_occupancy has shape"):
        fit_deep_max_ent(mdp, features, expert[:, :2], horizon=T)
    with pytest.raises(InvalidTrajectoryError, match="negative"):
        fit_deep_max_ent(mdp, features, -expert, horizon=T)
    with pytest.raises(ShapeError, match="the network gives"):
        wide = torch.nn.Linear(3, 2, dtype=torch.float64)
        fit_deep_max_ent(mdp, features, expert, network=wide, horizon=T)
    with pytest.raises(UnsupportedModelError, match="float64"):
        fit_deep_max_ent(mdp, features, expert, network=torch.nn.Linear(3, 1), horizon=T)
    with pytest.raises(ShapeError, match="rewards have shape"):
        OccupancyDual(mdp, expert, horizon=T)(torch.zeros(3))
    for bad in ({"hidden": (0,)}, {"weight_decay": -1.0}, {"max_iterations": 0}):
        with pytest.raises(InvalidHyperparameterError):
            DeepMaxEntConfig(**bad)


@pytest.mark.parametrize(
    ("name", "least", "below"),
    [
        ("hidden", (1,), (3, 0)),
        ("weight_decay", 0.0, -1e-9),
        ("reward_decay", 0.0, -1e-9),
        ("max_iterations", 1, 0),
        ("tolerance", 1e-300, 0.0),
    ],
)
def test_settings_have_a_least_value(name, least, below):
    DeepMaxEntConfig(**{name: least})
    with pytest.raises(InvalidHyperparameterError, match=name):
        DeepMaxEntConfig(**{name: below})


def test_the_network_begins_with_its_width_in_mind():
    """Weights of variance 1 / inputs and no bias: so the first rewards are about as large as 1."""
    network = reward_network(400, (300,), seed=1)
    first, squash, last = network
    assert isinstance(squash, torch.nn.Tanh) and len(network) == 3
    assert first.weight.shape == (300, 400) and last.weight.shape == (1, 300)
    assert float(first.weight.detach().std()) == pytest.approx(400**-0.5, rel=0.02)
    assert float(last.weight.detach().std()) == pytest.approx(300**-0.5, rel=0.2)
    assert not first.bias.any() and not last.bias.any()
    assert {p.dtype for p in network.parameters()} == {torch.float64}
    same, other = reward_network(400, (300,), seed=1), reward_network(400, (300,), seed=2)
    assert torch.equal(same[0].weight, first.weight) and not torch.equal(
        other[0].weight, first.weight
    )
    assert [layer.weight.shape[0] for layer in reward_network(2, seed=0)[::2]] == [32, 32, 1]


def test_the_mass_may_differ_by_a_hundredth(world):
    """1.1 % of the visits too many are refused, 0.9 % are taken; ends leave the length open."""
    mdp, _, expert = world
    right = float((mdp.discount ** np.arange(T)).sum())
    assert expert.sum() == pytest.approx(right)
    for factor in (1.009, 0.991):
        OccupancyDual(mdp, factor * expert, horizon=T)
    for factor in (1.011, 0.989):
        with pytest.raises(UnreachableFeaturesError, match=f"every policy makes {right:.6g}"):
            OccupancyDual(mdp, factor * expert, horizon=T)
    endless = expert / expert.sum() / (1 - mdp.discount)
    OccupancyDual(mdp, endless)
    with pytest.raises(UnreachableFeaturesError, match="every policy makes 10:"):
        OccupancyDual(mdp, 1.011 * endless)
    ending = gridworld(3, 4, goals={(2, 3): 1.0}, discount=0.9)
    OccupancyDual(ending, 7 * expert)


def test_the_penalties_are_added_to_the_dual(world):
    """Where L-BFGS begins: g + reward_decay / 2 mean r^2 + weight_decay / 2 |w|^2."""
    mdp, features, expert = world
    network = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    w = network.weight.detach().numpy()[0].copy()
    config = DeepMaxEntConfig(weight_decay=0.3, reward_decay=0.7, max_iterations=1, tolerance=1e-6)
    found = fit_deep_max_ent(
        mdp, features, expert, config, network=network, horizon=T, strict=False
    )
    mu = features.T @ expert.sum(axis=1)
    dual, slope = causal_dual(w, mdp, features, mu, horizon=T)
    r = features @ w
    assert found.trace[0, 0] == pytest.approx(dual + 0.35 * (r**2).mean() + 0.15 * w @ w)
    gradient = slope + 0.7 * features.T @ r / 12 + 0.3 * w
    assert found.trace[0, 1] == pytest.approx(np.abs(gradient).max())
    assert found.report.method == "deep max ent lbfgs" and not found.report.converged
    assert found.report.iterations == 1 and found.report.tolerance == 1e-6
    last = network.weight.detach().numpy()[0]
    assert found.dual == pytest.approx(causal_dual(last, mdp, features, mu, horizon=T)[0])


def test_terminal_states_collect_nothing():
    mdp = gridworld(3, 3, goals={(2, 2): 1.0}, start=(0, 0), discount=0.95)
    plan = planning.soft_policy_iteration(mdp)
    expert = planning.occupancy_measure(mdp, plan.policy)
    features = np.eye(9)
    config = DeepMaxEntConfig(hidden=(4,), max_iterations=200)
    result = fit_deep_max_ent(mdp, features, expert, config, strict=False)
    assert (result.reward[mdp.terminal] == 0).all()
    assert result.trace[-1, 0] < result.trace[0, 0]
    assert replace(config, seed=1) != config


@pytest.mark.parametrize("level", [0.1, 1e6 / 3, 0.0, -1e-9])
def test_a_constant_feature_is_standardised_to_zero_at_any_level(level):
    """Its mean may miss it by a rounding; that must not be divided by itself."""
    features = np.full((7, 3, 2), level)
    features[..., 1] = np.arange(21).reshape(7, 3)
    phi = standardise(features)
    assert (phi[..., 0] == 0).all() and phi[..., 1].std() == pytest.approx(1)
