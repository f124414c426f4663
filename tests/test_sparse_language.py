"""Credit assignment, instruction relabelling and self-play, against exact answers."""

import itertools
import json

import numpy as np
import pytest

from irlbook.decoding import games, mcts, self_play
from irlbook.errors import InvalidHyperparameterError, RewardError, ShapeError
from irlbook.lm.enumerable import EnumerableLM
from irlbook.posttraining import credit_assignment as credit
from irlbook.posttraining import hindsight_study
from irlbook.posttraining import instruction_relabelling as hir
from irlbook.posttraining.stored_runs import StoredRuns
from irlbook.rl.hindsight import HindsightConfig


@pytest.fixture(scope="module")
def lm():
    rng = np.random.default_rng(0)
    return EnumerableLM.create(("a", "b", "END"), 3, lambda p: rng.dirichlet(np.ones(3), len(p)))


@pytest.fixture(scope="module")
def reward(lm):
    return np.random.default_rng(1).normal(size=len(lm.responses))


def paths(lm):
    """Every response by walking the children: states before each token, and the tokens."""
    found = []
    for y in lm.response_ids():
        state, states = 0, []
        for token in y:
            states.append(state)
            state = int(lm.children[state, token])
        found.append((states, y))
    return found


def plain_mean(lm, weights):
    """sum_y p(y) sum_t G_t grad log pi, token by token."""
    total = np.zeros(lm.policy.shape)
    for p, (states, tokens), w in zip(
        np.exp(lm.sequence_log_probabilities()), paths(lm), weights, strict=True
    ):
        for t, (s, a) in enumerate(zip(states, tokens, strict=True)):
            total[s] += p * w[t] * (np.eye(3)[a] - lm.policy[s])
    return total


def test_attention_knows_the_whole_response(lm):
    scores = np.array([1.0, 0.0, -1.0])
    attention = credit.content_attention(lm, scores)
    for (_, tokens), row in zip(paths(lm), attention, strict=True):
        weights = np.exp(scores[tokens])
        assert np.allclose(row[: len(tokens)], weights / weights.sum())
        assert not row[len(tokens) :].any()


def test_token_rewards_sum_to_the_reward(lm, reward):
    attention = credit.content_attention(lm, np.array([1.0, 0.0, -1.0]))
    shared = credit.attention_rewards(lm, reward, attention, 0.8)
    changes = credit.value_change_rewards(lm, reward)
    assert np.allclose(shared.sum(axis=1), reward) and np.allclose(changes.sum(axis=1), reward)


def test_value_changes_are_advantages_and_shaping(lm, reward):
    changes = credit.value_change_rewards(lm, reward)
    tree, values = lm.mdp(reward), lm.prefix_values(reward)
    for (states, tokens), row in zip(paths(lm), changes, strict=True):
        for t, (s, a) in enumerate(zip(states, tokens, strict=True)):
            q = tree.reward[s, a] + values[lm.children[s, a]]
            assert row[t] == pytest.approx(q - values[s] + (values[0] if t == 0 else 0.0))
    assert credit.transition_spread(lm, changes) < 1e-12
    potential = credit.implied_potential(lm, reward, changes)
    inner = (lm.children[:, 0] >= 0) & (lm.lengths > 0)
    assert np.allclose(potential[inner], values[inner]) and potential[0] == 0
    assert not potential[lm.responses].any()


def test_attention_is_no_shaping_and_says_so(lm, reward):
    attention = credit.content_attention(lm, np.array([1.0, 0.0, -1.0]))
    shared = credit.attention_rewards(lm, reward, attention, 0.8)
    assert credit.transition_spread(lm, shared) > 0.1
    with pytest.raises(RewardError, match="prefix only"):
        credit.implied_potential(lm, reward, shared)
    at_end = credit.attention_rewards(lm, reward, attention, 0.0)
    assert credit.transition_spread(lm, at_end) == 0
    with pytest.raises(RewardError, match="miss the reward"):
        credit.implied_potential(lm, reward + 1, at_end)


def test_gradient_moments_against_a_plain_loop_and_the_theorem(lm, reward):
    whole = np.broadcast_to(reward[:, None], (len(reward), 3))
    mean, variance = credit.gradient_moments(lm, whole)
    assert np.allclose(mean, plain_mean(lm, whole)) and np.allclose(
        mean, lm.policy_gradient(reward)
    )
    chances = np.exp(lm.sequence_log_probabilities())
    second = sum(
        p * (credit.sampled_gradient(lm, np.array([y]), whole[[y]]) ** 2).sum()
        for y, p in enumerate(chances)
    )
    assert variance == pytest.approx(second - (mean**2).sum())


def test_what_is_biased_and_what_is_not(lm, reward):
    gradient = lm.policy_gradient(reward)
    attention = credit.content_attention(lm, np.array([1.0, 0.0, -1.0]))
    shared = credit.attention_rewards(lm, reward, attention, 0.8)
    to_go = credit.rewards_to_go(shared)
    assert np.allclose(to_go[:, 0], reward)
    whole = np.broadcast_to(to_go[:, :1], to_go.shape)
    assert np.allclose(credit.gradient_moments(lm, whole)[0], gradient)
    assert np.abs(credit.gradient_moments(lm, to_go)[0] - gradient).max() > 1e-3
    changes = credit.rewards_to_go(credit.value_change_rewards(lm, reward))
    assert np.allclose(credit.gradient_moments(lm, changes)[0], gradient)


def test_prefix_leave_one_out_by_hand_and_unbiased(lm, reward):
    ids = {tuple(y): k for k, y in enumerate(lm.response_ids())}
    sampled = np.array([ids[0, 0, 0], ids[0, 0, 1], ids[1, 2]])
    weights = credit.prefix_leave_one_out(lm, sampled, np.array([1.0, 2.0, 6.0]))
    assert np.allclose(weights[0], [1 - 4, 1 - 2, 1 - 2])
    assert np.allclose(weights[2], [6 - 1.5, 6 - 1.5, 0])
    # all pairs of responses, with their chances: the mean over two samples is the gradient
    chances = np.exp(lm.sequence_log_probabilities())
    total = np.zeros(lm.policy.shape)
    for i, j in itertools.product(range(len(chances)), repeat=2):
        pair = np.array([i, j])
        weights = credit.prefix_leave_one_out(lm, pair, reward[pair])
        total += chances[i] * chances[j] * credit.sampled_gradient(lm, pair, weights)
    assert np.allclose(total, lm.policy_gradient(reward))


def test_ascent_of_the_true_gradient_reaches_the_best_response(lm, reward):
    attention = credit.content_attention(lm, np.array([1.0, 0.0, -1.0]))
    shared = credit.attention_rewards(lm, reward, attention, 0.8)
    earned = credit.ascend(lm, reward, shared, steps=400, step_size=4.0, to_go=False)
    assert (np.diff(earned) > -1e-9).all() and earned[-1] > reward.max() - 0.1


def test_token_rewards_of_another_shape_are_refused(lm, reward):
    with pytest.raises(ShapeError):
        credit.transition_spread(lm, np.zeros((2, 3)))
    with pytest.raises(ShapeError):
        credit.content_attention(lm, np.zeros(5))
    with pytest.raises(ShapeError):
        credit.prefix_leave_one_out(lm, np.array([0]), np.array([1.0]))


# Instructions -------------------------------------------------------------------------------------


def test_endless_relabelled_samples_give_the_reference_of_each_kind(lm):
    reference = np.exp(lm.sequence_log_probabilities())
    kinds = np.arange(len(reference)) % 3
    start = np.tile(reference, (3, 1))
    fitted = hir.relabelled_policy(start, kinds, np.array([0.2, 0.5, 0.3]))
    assert np.allclose(hir.success(fitted, kinds), 1.0)
    for k in range(3):
        own = np.where(kinds == k, reference, 0)
        assert np.allclose(fitted[k], own / own.sum())
    assert np.allclose(hir.relabelled_policy(fitted, kinds, np.ones(3) / 3), fitted)
    missing = np.where(kinds == 2, 0, reference)
    stays = hir.relabelled_policy(np.tile(missing, (3, 1)), kinds, np.ones(3) / 3)
    assert np.allclose(stays[2], missing)


def test_sampled_rounds_approach_the_exact_fit_and_filtering_lags(lm):
    log_p = lm.sequence_log_probabilities()
    kinds = np.arange(len(log_p)) % 4
    rows = {
        relabel: hir.instruction_rounds(
            log_p, kinds, rounds=6, samples=200, relabel=relabel, rng=np.random.default_rng(0)
        )
        for relabel in (True, False)
    }
    own = np.bincount(kinds, weights=np.exp(log_p))
    assert np.allclose(rows[True][0], own) and np.allclose(rows[False][0], own)
    assert rows[True][1].mean() > rows[False][1].mean() + 0.1
    assert rows[True][-1].min() > 0.9


def test_instruction_rounds_refuse_nonsense(lm):
    log_p = lm.sequence_log_probabilities()
    rng = np.random.default_rng(0)
    with pytest.raises(ShapeError):
        hir.instruction_rounds(log_p, np.zeros(2, int), rounds=1, samples=1, relabel=True, rng=rng)
    with pytest.raises(InvalidHyperparameterError):
        hir.instruction_rounds(
            log_p, np.zeros(len(log_p), int), rounds=0, samples=1, relabel=True, rng=rng
        )


def test_rows_of_instructions_are_reference_and_samples_by_their_counts():
    log_p, kinds = np.log([0.6, 0.3, 0.1]), np.array([0, 1, 1])
    for relabel in (True, False):
        for options in ({}, {"strength": 10.0}, {"strength": 0.5}):
            found = hir.instruction_rounds(
                log_p,
                kinds,
                rounds=1,
                samples=7,
                relabel=relabel,
                rng=np.random.default_rng(3),
                **options,
            )
            rng, counts = np.random.default_rng(3), np.zeros((2, 3))
            for k, n in enumerate(rng.multinomial(7, [0.5, 0.5])):
                for y in rng.choice(3, size=n, p=np.exp(log_p) / np.exp(log_p).sum()):
                    if relabel or kinds[y] == k:
                        counts[kinds[y], y] += 1
            rows = options.get("strength", 10.0) * np.exp(log_p) + counts
            rows /= rows.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(found, [[0.6, 0.4], [rows[0, 0], rows[1, 1:].sum()]])
    for bad in ({"samples": 0}, {"strength": 0.0}, {"strength": -1.0}):
        given = {"rounds": 1, "samples": 1, "relabel": True, "rng": np.random.default_rng(0)} | bad
        with pytest.raises(InvalidHyperparameterError, match="must be positive"):
            hir.instruction_rounds(log_p, kinds, **given)


# Self-play ----------------------------------------------------------------------------------------


def test_losses_to_chance_by_playing_every_game():
    game = games.NoughtsAndCrosses()

    def lost(board, mine):  # without any memory, seen by whoever moves
        over = game.result(board)
        if over is not None:
            return float((over if mine else -over) < 0)
        if mine:
            return lost(game.play(board, board.index(0)), False)
        return np.mean([lost(game.play(board, m), True) for m in game.moves(board)])

    found = self_play.losses_to_chance(lambda board: board.index(0))
    assert found == pytest.approx((lost(games.START, True), lost(games.START, False)))
    assert self_play.losses_to_chance(lambda board: games.best_moves(board)[0]) == (0.0, 0.0)


def test_guaranteed_of_a_perfect_and_of_a_foolish_player():
    assert self_play.guaranteed(lambda board: games.best_moves(board)[0]) == (0.0, 0.0)
    foolish = self_play.guaranteed(lambda board: board.index(0))
    assert foolish[1] == -1.0

    def play(move, first):  # every reply of the opponent, one game at a time
        game, worst = games.NoughtsAndCrosses(), 1.0
        stack = [(games.START, first)]
        while stack:
            board, mine = stack.pop()
            over = game.result(board)
            if over is not None:
                worst = min(worst, over if mine else -over)
            elif mine:
                stack.append((game.play(board, move(board)), False))
            else:
                stack += [(game.play(board, m), True) for m in game.moves(board)]
        return worst

    move = lambda board: board.index(0)  # noqa: E731
    assert foolish == (play(move, True), play(move, False))


def test_the_evaluator_is_a_distribution_alike_for_boards_that_are_alike():
    network = self_play.BoardNetwork(8)
    evaluate = network.evaluator()
    board = (1, -1, 0, 0, 0, 0, 0, 0, 0)
    turned = (0, 0, 1, 0, 0, -1, 0, 0, 0)
    prior, value = evaluate(board)
    other, same = evaluate(turned)
    assert prior.sum() == pytest.approx(1) and value == pytest.approx(same)
    assert np.allclose(sorted(prior), sorted(other))
    assert np.allclose(network.evaluator(1.0)(board)[0], 1 / 7)


def test_results_are_seen_by_the_player_to_move():
    config = self_play.SelfPlayConfig(simulations=30, free_moves=0)
    exact = lambda b: (  # noqa: E731
        np.full(b.count(0), 1 / b.count(0)),
        float(games.solve(b)),
    )
    met = self_play.play_game(exact, config, np.random.default_rng(0))
    assert len(met) == 9 and all(z == 0 for _, _, z in met)  # good play is a draw

    def bad(board):  # one side sees nothing and the other wins
        return np.eye(board.count(0))[0], 0.0

    rng = np.random.default_rng(1)
    decided = self_play.play_game(bad, self_play.SelfPlayConfig(simulations=2), rng)
    signs = [z for _, _, z in decided]
    assert abs(signs[-1]) == 1 and signs[-1] == 1  # the one who moved last has won
    assert all(a == -b for a, b in zip(signs, signs[1:], strict=False))


def test_self_play_learns_something():
    config = self_play.SelfPlayConfig(rounds=3, games=15, simulations=20, updates=60)
    networks = self_play.alphazero(config, seed=0)
    hard = [p for p in games.positions() if len(games.best_moves(p)) < p.count(0)]

    def right(network):
        move = self_play.network_move(network)
        return np.mean([move(b) in games.best_moves(b) for b in hard])

    assert len(networks) == 4 and right(networks[-1]) > right(networks[0]) + 0.1
    root = mcts.search(games.NoughtsAndCrosses(), games.START, networks[-1].evaluator(), 5)
    assert root.visits.sum() == 5


def test_self_play_refuses_nonsense():
    with pytest.raises(InvalidHyperparameterError, match="noise"):
        self_play.SelfPlayConfig(noise=2.0)
    with pytest.raises(InvalidHyperparameterError, match="games"):
        self_play.SelfPlayConfig(games=0)


# The stored study ---------------------------------------------------------------------------------


def test_the_study_writes_and_goes_on(tmp_path, capsys):
    small = hindsight_study.HindsightStudy(
        sizes={"DQN": (3,), "HER": (3,)},
        seeds=(0,),
        cycles_per_bit=1,
        learner=HindsightConfig(updates=1, tests=5),
    )
    out = tmp_path / "made.json"
    command = ["--parts", str(tmp_path / "parts"), "--out", str(out)]
    assert hindsight_study.main(command, small) == 0
    first = json.loads(out.read_text())
    assert hindsight_study.main(command, small) == 0
    assert json.loads(out.read_text())["runs"] == first["runs"]
    assert set(first["runs"]) == {"DQN, 3 bits", "HER, 3 bits"}


def test_a_stored_run_can_be_made_again():
    study = hindsight_study.HindsightStudy()
    stored = StoredRuns(hindsight_study.NAME, hindsight_study.settings(study), here=())
    kept = stored.stored("DQN, 5 bits", 0)
    made = hindsight_study.record(study, "DQN", 5, 0)
    assert made["cycles"] == kept["cycles"] and made["played"] == kept["played"]
    assert abs(made["reached"] - kept["reached"]) < 0.2 * kept["reached"]  # rounding may differ
    assert made["success"][-1] == pytest.approx(kept["success"][-1], abs=0.05)
    for condition, sizes in study.sizes.items():
        for n_bits in sizes:
            for seed in study.seeds:
                assert stored.stored(f"{condition}, {n_bits} bits", seed) is not None
