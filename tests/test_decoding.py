"""Search and guided decoding: each method against its oracle, a planted bug, and bad input."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from irlbook.decoding import (
    beam,
    blockwise,
    expert_iteration,
    games,
    guided,
    mcts,
    measure,
    partial_sequence,
    smc,
    speculative,
    step_tree,
    whole_response,
)
from irlbook.decoding import prefix_scorers as ps
from irlbook.errors import (
    InvalidHyperparameterError,
    InvalidPolicyError,
    NotConvergedError,
    NotFiniteError,
    ShapeError,
)
from irlbook.lm.enumerable import EnumerableLM, best_of_n, expectation, kl_from_logps, tilted
from irlbook.planning import soft_backward_induction
from irlbook.tasks import arithmetic


def random_lm(seed, tokens=3, length=3):
    rng = np.random.default_rng(seed)
    names = [*"abcdefg"[: tokens - 1], "END"]
    return EnumerableLM.create(
        names, length, lambda prefixes: rng.dirichlet(np.full(tokens, 2.0), size=len(prefixes))
    )


def random_reward(lm, seed):
    return np.random.default_rng([seed, 1]).normal(size=len(lm.responses)) * 2


@pytest.fixture(params=[0, 1, 2])
def world(request):
    lm = random_lm(request.param)
    return lm, random_reward(lm, request.param)


def below(lm, state):
    """Places of the responses that begin with a prefix."""
    head = lm.prefixes[state, : lm.lengths[state]]
    return [k for k, s in enumerate(lm.responses) if (lm.prefixes[s, : len(head)] == head).all()]


# Values and guided decoding -----------------------------------------------------------------------


def test_soft_and_mean_values_are_expectations_over_completions(world):
    lm, r = world
    log_p, beta = lm.sequence_log_probabilities(), 0.7
    soft, mean = ps.soft_values(lm, r, beta), ps.mean_values(lm, r)
    for state in range(lm.n_states):
        those = below(lm, state)
        p = np.exp(log_p[those]) / np.exp(log_p[those]).sum()
        assert soft[state] == pytest.approx(beta * np.log(p @ np.exp(r[those] / beta)), abs=1e-12)
        assert mean[state] == pytest.approx(p @ r[those], abs=1e-12)


def test_guided_by_soft_values_is_the_optimum_and_by_mean_values_is_not(world):
    lm, r = world
    beta = 0.5
    best = tilted(lm.sequence_log_probabilities(), r, beta)[0]
    found = guided.guided_policy(lm, ps.soft_values(lm, r, beta), 1 / beta)
    assert np.abs(lm.sequence_log_probabilities(found) - best).max() < 1e-12
    plain = guided.guided_policy(lm, ps.mean_values(lm, r), 1 / beta)
    assert np.abs(lm.sequence_log_probabilities(plain) - best).max() > 0.01


def test_guided_by_mean_values_is_the_optimum_of_one_step_at_a_time(world):
    """Controlled decoding: each row maximises E[V(s a)] - beta KL(row || reference)."""
    lm, r = world
    values, beta = ps.mean_values(lm, r), 0.5
    policy = guided.guided_policy(lm, values, 1 / beta)
    rng = np.random.default_rng(0)
    for state in np.flatnonzero(lm.children[:, 0] >= 0):
        gain = values[lm.children[state]]

        def worth(row, state=state, gain=gain):
            return row @ gain - beta * row @ np.log(row / lm.policy[state])

        best = worth(policy[state])
        assert best == pytest.approx(beta * np.log(lm.policy[state] @ np.exp(gain / beta)))
        assert all(worth(row) < best + 1e-12 for row in rng.dirichlet(np.ones(3), size=20))


def test_guided_decoding_top_and_greedy():
    lm = random_lm(0, tokens=4)
    r = random_reward(lm, 0)
    scores = ps.mean_values(lm, r)
    policy = guided.guided_policy(lm, scores, 1.0, top=2)
    live = lm.children[:, 0] >= 0
    assert ((policy[live] > 0).sum(axis=1) == 2).all()
    allowed = guided.likeliest(lm.policy[live], 2)
    assert (policy[live][~allowed] == 0).all() and allowed.sum(axis=1).max() == 2
    greedy = guided.guided_policy(lm, scores, 3.0, greedy=True)
    wanted = (np.log(lm.policy[live]) + 3.0 * scores[lm.children[live]]).argmax(axis=1)
    assert (greedy[live].argmax(axis=1) == wanted).all()
    same = guided.guided_policy(lm, scores, 0.0)
    assert np.allclose(same, lm.policy)
    generated, scored = guided.guided_tokens(lm, policy, top=2)
    assert scored == pytest.approx(2 * generated) and 1 <= generated <= 3


def test_guided_refuses():
    lm = random_lm(0)
    for scores, error in (
        (np.zeros(3), ShapeError),
        (np.full(lm.n_states, np.nan), NotFiniteError),
    ):
        with pytest.raises(error):
            guided.guided_policy(lm, scores, 1.0)
    for options in ({"weight": -1.0}, {"weight": 1.0, "top": 0}):
        with pytest.raises(InvalidHyperparameterError):
            guided.guided_policy(lm, np.zeros(lm.n_states), **options)
    with pytest.raises(ShapeError):
        ps.with_rewards(lm, np.zeros(lm.n_states), np.zeros(2))


# Measures -----------------------------------------------------------------------------------------


def test_best_reward_at_kl_bounds_every_policy(world):
    lm, r = world
    log_p = lm.sequence_log_probabilities()
    for beta in (0.2, 1.0, 5.0):
        best = tilted(log_p, r, beta)[0]
        kl = kl_from_logps(best, log_p)
        assert measure.best_reward_at_kl(log_p, r, kl) == pytest.approx(expectation(best, r))
    rng = np.random.default_rng(0)
    for row in rng.dirichlet(np.exp(log_p) * 10 + 0.05, size=50):
        other = np.log(row / row.sum())
        limit = measure.best_reward_at_kl(log_p, r, kl_from_logps(other, log_p))
        assert expectation(other, r) <= limit + 1e-9
    assert measure.best_reward_at_kl(log_p, r, 0.0) == pytest.approx(expectation(log_p, r))
    assert measure.best_reward_at_kl(log_p, r, 100.0) == r.max()
    with pytest.raises(InvalidHyperparameterError):
        measure.best_reward_at_kl(log_p, r, -0.1)


def test_outcome_and_expected_tokens():
    lm = random_lm(1)
    log_p = lm.sequence_log_probabilities()
    found = measure.outcome(lm, log_p, random_reward(lm, 1), 2.0, 3.0)
    assert found.kl == pytest.approx(0) and found.tokens == 5.0
    drawn = lm.sample(20_000, np.random.default_rng(0))
    assert measure.expected_tokens(lm) == pytest.approx(
        lm.lengths[lm.responses[drawn]].mean(), abs=0.03
    )


# Learned prefix scorers ---------------------------------------------------------------------------


def test_on_a_tree_tabular_td_is_monte_carlo():
    lm = random_lm(3)
    rng = np.random.default_rng(0)
    numbers = lm.sample(40, rng)
    rewards = random_reward(lm, 3)[numbers]
    one, other = ps.tabular_monte_carlo(lm, numbers, rewards), ps.tabular_td(lm, numbers, rewards)
    assert (np.isnan(one) == np.isnan(other)).all() and np.isnan(one).any()
    assert np.nanmax(np.abs(one - other)) < 1e-12


def test_linear_scorers_find_the_mean_values_where_the_features_hold_them():
    lm = random_lm(4)
    r = random_reward(lm, 4)
    rng = np.random.default_rng(0)
    states, owner = ps.visited_prefixes(lm, numbers := lm.sample(30_000, rng))
    features = np.eye(lm.n_states)
    want = ps.mean_values(lm, r)
    seen = np.unique(states)
    td = ps.td_weights(lm, features, states, r)
    assert np.abs(td - want)[seen].max() < 1e-6  # it knows the next-token distribution
    mc = ps.monte_carlo_weights(features, states, r[numbers][owner])
    counts = np.bincount(states, minlength=lm.n_states)
    often = counts > 2000
    assert np.abs(mc - want)[often].max() < 0.15


def test_linear_scorers_refuse_and_td_says_that_it_diverges():
    lm = random_lm(4)
    states, _ = ps.visited_prefixes(lm, lm.sample(5, np.random.default_rng(0)))
    with pytest.raises(ShapeError):
        ps.monte_carlo_weights(np.zeros(3), states, np.zeros(len(states)))
    with pytest.raises(InvalidHyperparameterError):
        ps.td_weights(lm, np.eye(lm.n_states), states, random_reward(lm, 4), ridge=0.0)
    growing = np.where(lm.children[:, 0] >= 0, 4.0 ** np.maximum(lm.lengths, 0), 0.0)[:, None]
    with pytest.raises(NotConvergedError):
        ps.td_weights(lm, growing, np.zeros(3, dtype=int), random_reward(lm, 4), max_iterations=50)


# Rewards of whole responses, and of partial ones --------------------------------------------------


def test_an_extension_agrees_on_whole_responses_and_guides_anywhere(world):
    lm, r = world
    rng = np.random.default_rng(5)
    wanted = rng.dirichlet(np.ones(3), size=lm.n_states)
    scores = whole_response.extension(lm, r, wanted, weight=2.0)
    assert (scores[lm.responses] == r).all()
    found = guided.guided_policy(lm, scores, 2.0)
    inner = (lm.children[:, 0] >= 0) & (lm.lengths < lm.max_length - 1)
    assert np.abs(found - wanted)[inner].max() < 1e-12
    last = (lm.children[:, 0] >= 0) & (lm.lengths == lm.max_length - 1)
    honest = guided.guided_policy(lm, ps.mean_values(lm, r), 2.0)
    assert np.abs(found - honest)[last].max() < 1e-12
    with pytest.raises(InvalidPolicyError):
        whole_response.extension(lm, r, np.eye(3)[np.zeros(lm.n_states, dtype=int)], 2.0)


def test_cut_is_the_prefix_of_that_length(world):
    lm, _ = world
    for length in range(1, lm.max_length + 1):
        for response, state in zip(lm.responses, partial_sequence.cut(lm, length), strict=True):
            t = min(length, lm.lengths[response])
            assert lm.lengths[state] == t
            assert (lm.prefixes[state, :t] == lm.prefixes[response, :t]).all()
    with pytest.raises(InvalidHyperparameterError):
        partial_sequence.cut(lm, 0)


def test_truncated_counts_against_two_loops():
    lm = random_lm(0)
    r, beta = random_reward(lm, 0), 0.8
    p = np.exp(lm.sequence_log_probabilities())
    pairs, counts = partial_sequence.truncated_counts(lm, r, beta)
    want = np.zeros((lm.n_states, lm.n_states))
    for length in range(1, 4):
        at = partial_sequence.cut(lm, length)
        for i, j in product(range(len(p)), repeat=2):
            if at[i] != at[j]:
                want[at[i], at[j]] += p[i] * p[j] / (1 + np.exp((r[j] - r[i]) / beta))
    assert np.abs(want[pairs[:, 0], pairs[:, 1]] - counts).max() < 1e-14
    assert counts.sum() == pytest.approx(want.sum())


def test_partial_sequence_scores_satisfy_the_first_order_condition(world):
    lm, r = world
    scores = partial_sequence.partial_sequence_scores(lm, r)
    pairs, counts = partial_sequence.truncated_counts(lm, r)
    surprise = counts / (1 + np.exp(scores[pairs[:, 0]] - scores[pairs[:, 1]]))
    slope = np.bincount(pairs[:, 0], surprise, lm.n_states)
    slope -= np.bincount(pairs[:, 1], surprise, lm.n_states)
    assert np.abs(slope).max() < 1e-8


# Searches -----------------------------------------------------------------------------------------


def test_a_block_of_the_whole_response_is_best_of_n(world):
    lm, r = world
    log_p = lm.sequence_log_probabilities()
    found, generated, scored = blockwise.blockwise_best_of_k(lm, ps.mean_values(lm, r), 4, 3)
    assert np.abs(np.exp(found) - np.exp(best_of_n(log_p, r, 4))).max() < 1e-12
    assert generated == scored == pytest.approx(4 * measure.expected_tokens(lm))
    one, tokens, _ = blockwise.blockwise_best_of_k(lm, ps.mean_values(lm, r), 1, 2)
    assert np.abs(one - log_p).max() < 1e-12
    assert tokens == pytest.approx(measure.expected_tokens(lm))


@pytest.mark.parametrize("block", [1, 2])
def test_blockwise_against_simulation(block):
    lm = random_lm(6)
    r = random_reward(lm, 6)
    scores = ps.mean_values(lm, r)
    found, generated, _ = blockwise.blockwise_best_of_k(lm, scores, 3, block)
    rng = np.random.default_rng(0)
    counts, written, runs = np.zeros(len(lm.responses)), 0, 4000
    place = {int(s): k for k, s in enumerate(lm.responses)}
    for _ in range(runs):
        state = 0
        while state not in place:
            ends, logs = blockwise.block_ends(lm, state, block)
            drawn = rng.choice(len(ends), size=3, p=np.exp(logs))
            written += (lm.lengths[ends[drawn]] - lm.lengths[state]).sum()
            state = int(max(ends[drawn], key=lambda s: scores[s]))
        counts[place[state]] += 1
    p = np.exp(found)
    assert p.sum() == pytest.approx(1)
    error = np.sqrt(p * (1 - p) / runs) + 1e-9
    assert (np.abs(counts / runs - p) < 4.5 * error + 1e-3).all()
    assert written / runs == pytest.approx(generated, rel=0.03)


def test_blockwise_refuses():
    lm = random_lm(0)
    for k, block in ((0, 1), (1, 0)):
        with pytest.raises(InvalidHyperparameterError):
            blockwise.blockwise_best_of_k(lm, np.zeros(lm.n_states), k, block)


def test_a_wide_beam_finds_the_best_response_and_a_narrow_one_may_not():
    missed = 0
    for seed in range(12):
        lm = random_lm(seed)
        r = random_reward(lm, seed)
        scores = ps.with_rewards(lm, np.zeros(lm.n_states), r)  # says nothing of prefixes
        target = lm.sequence_log_probabilities() + 1.5 * r
        wide, generated, scored = beam.beam_search(lm, scores, lm.n_states, 1.5)
        assert wide.argmax() == target.argmax() and np.exp(wide).sum() == 1
        assert scored == 3 * generated == 3 * (lm.children[:, 0] >= 0).sum()
        missed += beam.beam_search(lm, scores, 1, 1.5)[0].argmax() != target.argmax()
        honest = ps.soft_values(lm, r, 1e-3)  # the best that can follow, nearly
        found = beam.beam_search(lm, honest, 1, 1.0, likelihood=0.0)[0]
        assert r[found.argmax()] == r.max()
    assert missed > 3
    with pytest.raises(InvalidHyperparameterError):
        beam.beam_search(lm, scores, 0, 1.0)


# Twisted SMC --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("twist", ["soft", "mean", "none", "wild"])
def test_the_normaliser_is_unbiased_over_all_outcomes(n, twist):
    lm = random_lm(7, tokens=3, length=2)
    r, beta = random_reward(lm, 7), 0.8
    log_p = lm.sequence_log_probabilities()
    target, log_z = tilted(log_p, r, beta)
    scores = {
        "soft": ps.soft_values(lm, r, beta) / beta,
        "mean": ps.mean_values(lm, r) / beta,
        "none": ps.with_rewards(lm, np.zeros(lm.n_states), r) / beta,
        "wild": ps.with_rewards(lm, 3 * np.random.default_rng(0).normal(size=lm.n_states), r)
        / beta,
    }[twist]
    for proposal in (None, smc.twisted_proposal(lm, scores)):
        chance, z = smc.exact_smc(lm, scores, n, proposal=proposal)
        # On whole responses the twist is r / beta divided by nothing: the last weight mends all.
        assert chance.sum() == pytest.approx(1, abs=1e-12)
        assert np.abs(z - np.exp(target + log_z)).max() < 1e-10
        if twist == "soft" and proposal is not None:
            assert np.abs(chance - np.exp(target)).max() < 1e-12


def test_weights_that_are_not_divided_by_the_twist_before_are_told(monkeypatch):
    """The planted bug: weights psi(s a) in the place of psi(s a) / psi(s)."""
    lm = random_lm(7, tokens=3, length=2)
    r, beta = random_reward(lm, 7), 0.8
    log_z = tilted(lm.sequence_log_probabilities(), r, beta)[1]
    scores = ps.mean_values(lm, r) / beta
    assert smc.exact_smc(lm, scores, 2)[1].sum() == pytest.approx(np.exp(log_z))
    right = smc.incremental_weights

    def wrong(model, twists, proposal):
        before = np.where(model.children[:, 0] >= 0, twists, 0.0)
        before[0] = 0.0
        return right(model, twists, proposal) + before[:, None]

    monkeypatch.setattr(smc, "incremental_weights", wrong)
    assert abs(smc.exact_smc(lm, scores, 2)[1].sum() / np.exp(log_z) - 1) > 0.01


def test_simulated_smc_is_the_exact_one():
    lm = random_lm(8)
    r, beta = random_reward(lm, 8), 1.0
    scores = ps.mean_values(lm, r) / beta
    chance, z = smc.exact_smc(lm, scores, 2)
    found = smc.simulate_smc(lm, scores, 2, np.random.default_rng(0), runs=40_000)
    counts = np.bincount(found.outputs, minlength=len(chance)) / 40_000
    assert np.abs(counts - chance).max() < 0.012
    error = np.exp(found.log_z).std() / 200
    assert abs(np.exp(found.log_z).mean() - z.sum()) < 4 * error
    assert set(found.distinct) <= {1, 2}
    plain = smc.simulate_smc(lm, scores, 2, np.random.default_rng(1), runs=40_000, resample=False)
    error = np.exp(plain.log_z).std() / 200
    assert abs(np.exp(plain.log_z).mean() - z.sum()) < 4 * error
    assert plain.tokens == pytest.approx(2 * measure.expected_tokens(lm), rel=0.02)


def test_many_particles_approach_the_optimum():
    lm = random_lm(9)
    r, beta = random_reward(lm, 9), 0.7
    target = np.exp(tilted(lm.sequence_log_probabilities(), r, beta)[0])
    scores = ps.mean_values(lm, r) / beta
    off = []
    for n in (1, 512):
        found = smc.simulate_smc(lm, scores, n, np.random.default_rng(0), runs=8_000)
        counts = np.bincount(found.outputs, minlength=len(target)) / 8_000
        off.append(np.abs(counts - target).sum())
    assert off[1] < 0.12 < 0.3 < off[0]


def test_smc_refuses():
    lm = random_lm(0)
    zero = np.zeros(lm.n_states)
    with pytest.raises(InvalidPolicyError):
        smc.incremental_weights(lm, zero, np.eye(3)[np.zeros(lm.n_states, dtype=int)])
    with pytest.raises(ShapeError):
        smc.incremental_weights(lm, zero, lm.policy[:3])
    with pytest.raises(InvalidHyperparameterError):
        smc.simulate_smc(lm, zero, 0, np.random.default_rng(0))
    with pytest.raises(InvalidHyperparameterError):
        smc.exact_smc(lm, zero, 0)


# Speculative decoding -----------------------------------------------------------------------------


def test_speculative_sampling_is_the_target_and_the_short_cut_is_not(world):
    lm, r = world
    target = lm.kl_optimum(r, 0.5).policy
    live = lm.children[:, 0] >= 0
    found = speculative.speculative_sampling(lm, lm.policy, target)
    assert np.abs(found.policy - target)[live].max() < 1e-12
    overlap = np.minimum(lm.policy, target).sum(axis=1)
    assert np.abs(found.accepted - overlap)[live].max() < 1e-12
    wrong = speculative.speculative_sampling(lm, lm.policy, target, residual=False)
    assert np.abs(wrong.policy - target)[live].max() > 0.01
    same = speculative.speculative_sampling(lm, target, target)
    assert same.rejected == pytest.approx(0, abs=1e-12)


def test_reward_guided_speculation_against_simulation():
    lm = random_lm(2)
    r = random_reward(lm, 2)
    scores, target = ps.mean_values(lm, r), lm.kl_optimum(r, 0.5).policy
    found = speculative.reward_guided(lm, lm.policy, target, scores, threshold=0.3)
    rng = np.random.default_rng(0)
    counts, asked, runs = np.zeros(len(lm.responses)), 0, 6000
    place = {int(s): k for k, s in enumerate(lm.responses)}
    for _ in range(runs):
        state = 0
        while state not in place:
            token = rng.choice(3, p=lm.policy[state])
            if scores[lm.children[state, token]] < 0.3:
                token, asked = rng.choice(3, p=target[state]), asked + 1
            state = int(lm.children[state, token])
        counts[place[state]] += 1
    p = np.exp(lm.sequence_log_probabilities(found.policy))
    assert np.abs(counts / runs - p).max() < 0.03
    assert asked / runs == pytest.approx(found.rejected, abs=0.05)
    draft = speculative.reward_guided(lm, lm.policy, target, scores, -np.inf)
    assert np.allclose(draft.policy, lm.policy) and draft.rejected == pytest.approx(0)
    all_target = speculative.reward_guided(lm, lm.policy, target, scores, np.inf)
    assert np.allclose(all_target.policy, target)
    with pytest.raises(ShapeError):
        speculative.reward_guided(lm, lm.policy[:2], target, scores, 0.0)
    with pytest.raises(InvalidHyperparameterError):
        speculative.reward_guided(lm, 2 * lm.policy, target, scores, 0.0)


# Tree search --------------------------------------------------------------------------------------


def test_noughts_and_crosses_is_a_draw_with_627_positions():
    assert games.solve() == 0.0
    assert len(games.positions()) == 627  # 765 up to symmetry, 138 of them over
    win = (1, 1, 0, -1, -1, 0, 0, 0, 0)
    assert games.solve(win) == 1.0 and games.best_moves(win) == (2,)
    board, fields = games.canonical(win)
    assert tuple(win[i] for i in fields) == board


def test_search_finds_the_best_move_and_without_the_sign_it_does_not():
    game, rng = games.NoughtsAndCrosses(), np.random.default_rng(0)
    hard = [p for p in games.positions() if p.count(0) >= 3 and len(games.best_moves(p)) == 1][::4]

    def share(rules):
        evaluate = mcts.uniform_rollouts(rules, rng)
        found = [mcts.search(rules, p, evaluate, 150).best in games.best_moves(p) for p in hard]
        return np.mean(found)

    class NoSign(games.NoughtsAndCrosses):
        alternating = False

    assert share(game) > 0.93
    assert share(NoSign()) < 0.7


def test_values_of_the_search_approach_the_solution():
    game, rng = games.NoughtsAndCrosses(), np.random.default_rng(1)
    win = (1, 1, 0, -1, -1, 0, 0, 0, 0)
    root = mcts.search(game, win, mcts.uniform_rollouts(game, rng), 400)
    assert root.value > 0.9 and root.best == 2
    assert root.shares.sum() == pytest.approx(1) and root.visits.sum() == 400


def test_puct_by_hand():
    node = mcts.Node("s", "ab", np.array([0.75, 0.25]), np.array([3.0, 1.0]), np.array([1.5, 1.0]))
    want = [0.5 + 2 * 0.75 * 2 / 4, 1.0 + 2 * 0.25 * 2 / 2]
    assert mcts.puct(node, 2.0) == pytest.approx(want, abs=1e-6)


def test_a_search_is_stopped_before_a_walk_and_also_before_the_first():
    game, rng = games.NoughtsAndCrosses(), np.random.default_rng(1)
    for walks in (0, 3):
        stop = iter([False] * walks + [True]).__next__
        root = mcts.search(game, games.START, mcts.uniform_rollouts(game, rng), 10, stop=stop)
        assert root.visits.sum() == walks


def test_search_refuses():
    game = games.NoughtsAndCrosses()
    full = (1, -1, 1, 1, -1, -1, -1, 1, 1)
    uniform = mcts.uniform_rollouts(game, np.random.default_rng(0))
    with pytest.raises(InvalidHyperparameterError):
        mcts.search(game, full, uniform, 10)
    with pytest.raises(InvalidHyperparameterError):
        mcts.search(game, games.START, uniform, 0)
    with pytest.raises(InvalidPolicyError):
        mcts.search(game, games.START, lambda state: (np.ones(2), 0.0), 10)


# Word problems ------------------------------------------------------------------------------------


@pytest.fixture
def problem():
    return arithmetic.generate(1, np.random.default_rng(3), steps=(3, 3))[0]


def test_the_tree_writes_what_the_verifiers_read(problem):
    tree = step_tree.StepTree(problem)
    careful = (0, 0, 0)
    assert tree.text(careful) == arithmetic.solve(problem)
    assert tree.result(careful) == 1.0 and tree.sound_so_far((0, 0))
    assert not tree.sound_so_far((0, 3)) and not tree.sound_so_far((2,))
    assert tree.result((3, 4, 0)) == 1.0 and tree.lucky((3, 4, 0))  # the two mistakes cancel
    chances = tree.prior(())
    assert chances.sum() == pytest.approx(1) and chances[0] == chances.max()


def test_right_answers_by_chance_are_counted_exactly(problem):
    """Probability of acceptance by enumeration, against samples."""
    tree = step_tree.StepTree(problem)

    def accepted(state):
        over = tree.result(state)
        if over is not None:
            return over
        options = zip(tree.moves(state), tree.prior(state), strict=True)
        return sum(p * accepted(tree.play(state, m)) for m, p in options)

    rng = np.random.default_rng(0)
    seen = np.mean([tree.result(tree.write(rng)) for _ in range(2000)])
    assert seen == pytest.approx(accepted(()), abs=0.04)


@pytest.mark.parametrize("method", ["sample_until", "step_by_step", "tree_search"])
def test_searches_keep_the_budget_and_return_what_is_accepted(problem, method):
    find = getattr(step_tree, method)
    tree = step_tree.StepTree(problem, step_tree.Writer(0.3, 0.3, 0.2, 0.2))
    found = [find(tree, 40, np.random.default_rng(seed)) for seed in range(20)]
    assert max(f.steps for f in found) <= 40 + 3
    hits = [f for f in found if f.state is not None]
    assert hits and all(tree.result(f.state) == 1.0 for f in hits)
    if method == "step_by_step":
        assert not any(tree.lucky(f.state) for f in hits)


def test_a_tree_search_that_is_right_at_once_writes_one_solution(problem):
    tree = step_tree.StepTree(problem, step_tree.Writer(1.0, 0.0, 0.0, 0.0))
    found = step_tree.tree_search(tree, 40, np.random.default_rng(0))
    assert found == step_tree.Found((0, 0, 0), 3)


def test_writer_refuses():
    with pytest.raises(InvalidHyperparameterError):
        step_tree.Writer(0.5, 0.5, 0.5, 0.5)


# Expert iteration ---------------------------------------------------------------------------------


def test_rounds_of_best_of_n_are_the_best_of_n_to_the_r(world):
    lm, r = world
    log_p = lm.sequence_log_probabilities()

    def search(model):
        return best_of_n(model.sequence_log_probabilities(), r, 3)

    rounds = expert_iteration.expert_iteration(lm, search, 2)
    assert np.abs(np.exp(rounds[2]) - np.exp(best_of_n(log_p, r, 9))).max() < 1e-12
    with pytest.raises(InvalidHyperparameterError):
        expert_iteration.expert_iteration(lm, search, -1)


def test_expert_iteration_with_the_optimum_multiplies_the_tilt(world):
    lm, r = world
    rounds = expert_iteration.expert_iteration(
        lm, lambda model: model.kl_optimum(r, 1.0).log_probabilities, 2
    )
    want = tilted(lm.sequence_log_probabilities(), r, 0.5)[0]
    assert np.abs(rounds[2] - want).max() < 1e-10
    assert replace(lm, policy=lm.token_policy(rounds[2])).n_states == lm.n_states


def test_break_even():
    assert expert_iteration.break_even(1000, 30, 10) == 50
    assert expert_iteration.break_even(1000, 10, 10) == np.inf
    with pytest.raises(InvalidHyperparameterError):
        expert_iteration.break_even(-1, 10, 10)


def test_one_round_improves_the_table_of_the_game():
    game = games.NoughtsAndCrosses()
    table = expert_iteration.improve(expert_iteration.Table(), 20)

    def share(policy):
        found = []
        for p in games.positions():
            chances = dict(zip(game.moves(p), policy(p)[0], strict=True))
            found.append(sum(chances[m] for m in games.best_moves(p)))
        return np.mean(found)

    assert share(table) > share(expert_iteration.Table()) + 0.1
    turned = games.START[:8] + (-1,)
    mirrored = (-1,) + games.START[1:]
    assert sorted(table(turned)[0]) == pytest.approx(sorted(table(mirrored)[0]))


def test_soft_values_are_those_of_the_soft_planner(world):
    lm, r = world
    plan = soft_backward_induction(lm.mdp(r), lm.max_length, beta=0.4, reference=lm.policy)
    live = lm.children[:, 0] >= 0
    assert np.abs(ps.soft_values(lm, r, 0.4) - plan.values[0])[live].max() < 1e-12
