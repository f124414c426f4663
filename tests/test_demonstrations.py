"""Rewards from demonstrations, tied policies, self-play on demonstrations, and distillation."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from irlbook.data.records import Demonstration
from irlbook.errors import (
    InfiniteDivergenceError,
    InvalidHyperparameterError,
    NotConvergedError,
    NotStochasticError,
    ResponseError,
    ShapeError,
    UninformativeDataError,
)
from irlbook.imitation.adversarial import best_discriminator, discriminator_reward
from irlbook.lm.enumerable import EnumerableLM, kl_from_logps, tilted
from irlbook.lm.token_table import TokenTable
from irlbook.lm.trees import collate
from irlbook.metrics import kl_divergence
from irlbook.planning import occupancy_measure
from irlbook.posttraining.demonstration_reward import (
    LogRatioReward,
    demonstration_pairs,
    log_ratio_reward,
)
from irlbook.posttraining.dpo import dpo_loss
from irlbook.posttraining.on_policy_distillation import distil_table, distillation_loss
from irlbook.posttraining.spin import gsil_loss, gsil_update, spin_population_loss, spin_update
from irlbook.posttraining.tied_policy import TiedPolicy, response_occupancy
from irlbook.tasks.recital import Recital


def _lm(seed=0, length=3):
    """A tree over three tokens with random next-token probabilities."""
    rng = np.random.default_rng(seed)
    return EnumerableLM.create(
        ("a", "b", "."), length, lambda prefixes: rng.dirichlet(np.ones(3), size=len(prefixes))
    )


def _logs(n, seed):
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(n)))


def _by_last_token(lm):
    """Prefixes share a row if they end alike: a bigram model."""
    last = np.where(
        lm.lengths > 0, lm.prefixes[np.arange(lm.n_states), np.maximum(lm.lengths - 1, 0)] + 1, 0
    )
    return TiedPolicy(lm, last)


# Rewards


def test_the_log_ratio_is_what_the_best_discriminator_pays():
    p, q = _logs(7, 0), _logs(7, 1)
    best = best_discriminator(np.exp(p), np.exp(q))
    assert np.abs(log_ratio_reward(p, q) - discriminator_reward(best, "logit")).max() < 1e-12


def test_the_start_tilted_by_the_log_ratio_is_the_fine_tuned_policy():
    p, q = _logs(7, 0), _logs(7, 1)
    assert np.abs(tilted(q, log_ratio_reward(p, q), 1.0)[0] - p).max() < 1e-12


def test_a_log_ratio_of_equal_distributions_is_named():
    p = _logs(5, 0)
    with pytest.raises(UninformativeDataError, match="same distribution"):
        log_ratio_reward(p, p.copy())


def test_a_log_ratio_knows_what_one_side_never_writes():
    with np.errstate(divide="ignore"):
        p, q = np.log([0.5, 0.5, 0.0, 0.0]), np.log([0.5, 0.25, 0.25, 0.0])
    assert log_ratio_reward(p, q)[2] == -np.inf
    assert log_ratio_reward(p, q)[3] == 0
    with pytest.raises(InfiniteDivergenceError, match="response 2"):
        log_ratio_reward(q, p)
    with pytest.raises(ShapeError):
        log_ratio_reward(p, _logs(3, 0))


def test_the_log_ratio_module_is_the_difference_of_two_tables():
    lm, other = _lm(0), _lm(1)
    reward = LogRatioReward(TokenTable(lm, other.policy), TokenTable(lm))
    tree = collate([((0,), lm.response_ids())])
    want = lm.sequence_log_probabilities(other.policy) - lm.sequence_log_probabilities()
    assert np.abs(reward(tree).detach().numpy() - want).max() < 1e-12


def test_demonstrations_that_equal_the_samples_are_named():
    shown = [Demonstration("p", "one."), Demonstration("q", "two.")]
    pairs = demonstration_pairs(shown, ["one. ", "three."])
    assert [(p.prompt, p.chosen, p.rejected) for p in pairs] == [("q", "two.", "three.")]
    with pytest.raises(UninformativeDataError, match="passed as samples"):
        demonstration_pairs(shown, ["one.", "two."])
    with pytest.raises(ShapeError):
        demonstration_pairs(shown, ["one."])


# Tied policies


def test_response_occupancy_is_the_occupancy_measure_of_the_tree():
    lm = _lm()
    zero = np.zeros(len(lm.responses))
    want = occupancy_measure(lm.mdp(zero), lm.policy, horizon=lm.max_length)
    live = lm.children[:, :1] >= 0
    found = response_occupancy(lm, lm.sequence_log_probabilities())
    assert (
        np.abs(
            found - np.where(live, want[:, None] * lm.policy if want.ndim == 1 else want, 0)
        ).max()
        < 1e-12
    )
    lengths = lm.lengths[lm.responses]
    assert found.sum() == pytest.approx(np.exp(lm.sequence_log_probabilities()) @ lengths)
    with pytest.raises(ShapeError):
        response_occupancy(lm, _logs(3, 0))


def test_covering_is_the_least_forward_kl_of_the_class():
    lm = _lm()
    tied, expert = _by_last_token(lm), _logs(len(lm.responses), 5)
    cover = tied.cover(expert)

    def forward(flat):
        policy = tied.policy(flat.reshape(tied.n_groups, 3))
        return kl_from_logps(expert, lm.sequence_log_probabilities(policy))

    found = minimize(forward, np.zeros(tied.n_groups * 3), method="BFGS")
    best = kl_from_logps(expert, lm.sequence_log_probabilities(cover))
    assert best <= found.fun + 1e-9
    assert found.fun - best < 1e-6


def test_the_gradient_of_the_reverse_kl_is_that_of_finite_differences():
    lm = _lm()
    tied, expert = _by_last_token(lm), _logs(len(lm.responses), 5)
    rng = np.random.default_rng(0)
    logits, size = rng.normal(size=(tied.n_groups, 3)), 1e-5
    gradient = tied.reverse_kl(logits, expert)[1]
    for index in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[index] = size
        up, down = (tied.reverse_kl(logits + s, expert)[0] for s in (step, -step))
        assert abs((up - down) / (2 * size) - gradient[index]) < 1e-8
    held = lm.policy_gradient(expert, tied.policy(logits))  # the planted bug: no -log pi
    wrong = np.zeros_like(logits)
    np.add.at(wrong, tied.groups, -held)
    assert np.abs(wrong - gradient).max() > 0.01


def test_seeking_finds_one_mode_or_the_other():
    lm = EnumerableLM.create(("a", "b", "."), 3, lambda x: np.full((len(x), 3), 1 / 3))
    texts = [lm.text(s) for s in lm.responses]
    p = np.full(len(texts), 0.001)
    p[texts.index("a a a")] = p[texts.index("b b b")] = 1.0
    expert = np.log(p / p.sum())
    one = TiedPolicy(lm, lm.lengths.clip(max=lm.max_length - 1))  # a row for each place
    starts = [np.tile([x, -x, 0.0], (one.n_groups, 1)) for x in (0.3, -0.3)]
    ends = [one.seek(expert, start) for start in starts]
    assert abs(ends[0].kl - ends[1].kl) < 1e-6
    assert np.exp(ends[0].log_p[texts.index("a a a")]) > 0.9
    assert np.exp(ends[1].log_p[texts.index("b b b")]) > 0.9
    with pytest.raises(NotConvergedError):
        one.seek(expert, starts[0], max_iterations=1)
    with pytest.raises(InvalidHyperparameterError):
        one.seek(expert, np.zeros((1, 3)))
    with np.errstate(divide="ignore"), pytest.raises(InfiniteDivergenceError):
        one.seek(np.log(np.eye(len(texts))[0]), starts[0])
    with pytest.raises(ShapeError):
        TiedPolicy(lm, np.zeros(3, dtype=int))


# Self-play


@pytest.mark.parametrize("lam", [0.3, 1.0, 3.0])
def test_no_policy_has_less_spin_loss_than_the_closed_form(lam):
    p, q = _logs(5, 0), _logs(5, 1)

    def loss(z):
        return spin_population_loss(z - np.logaddexp.reduce(z), p, q, lam)

    update = spin_update(p, q, lam)
    found = minimize(loss, q, method="BFGS", options={"gtol": 1e-9})
    assert loss(update) <= found.fun + 1e-9
    assert np.abs(found.x - np.logaddexp.reduce(found.x) - update).max() < 1e-3


def test_what_is_left_shrinks_by_one_less_one_over_lam():
    p, q = _logs(5, 0), _logs(5, 1)
    for lam in (0.4, 0.6, 2.0):
        left = [(p - x) - (p - x).mean() for x in (q, spin_update(p, q, lam))]
        assert np.abs(left[1] - (1 - 1 / lam) * left[0]).max() < 1e-12
    assert np.abs(spin_update(p, p, 0.3) - p).max() < 1e-12


def test_spin_is_dpo_on_demonstrations_against_samples():
    p, q = _logs(4, 0), _logs(4, 1)
    policy = _logs(4, 2)
    total = 0.0
    for i in range(4):
        for j in range(4):
            pair = torch.tensor([[policy[i], policy[j]]]), torch.tensor([[q[i], q[j]]])
            total += np.exp(p[i] + q[j]) * float(dpo_loss(*pair, beta=0.7))
    assert total == pytest.approx(spin_population_loss(policy, p, q, 0.7), abs=1e-12)


def test_gsil_ends_where_its_loss_says_and_nowhere_else():
    p, q = _logs(4, 0), _logs(4, 1)
    assert np.abs(gsil_update(p, q, 1.0) - p).max() < 1e-4
    assert np.abs(gsil_update(p, p, 0.5) - p).max() < 1e-6
    one, two = gsil_update(p, q, 2.0), spin_update(p, q, 2.0)
    assert np.abs(one - two).max() > 1e-3

    def loss(log_policy):
        total = 0.0
        for i in range(4):
            for j in range(4):
                pair = torch.tensor([[log_policy[i], log_policy[j]]]), torch.tensor([[q[i], q[j]]])
                total += np.exp(p[i] + q[j]) * float(gsil_loss(*pair, 2.0))
        return total

    assert loss(one) < loss(two)
    rng = np.random.default_rng(0)
    for _ in range(20):
        near = one + 0.01 * rng.normal(size=4)
        assert loss(one) <= loss(near - np.logaddexp.reduce(near)) + 1e-9


def test_self_play_names_bad_input():
    p = _logs(3, 0)
    with np.errstate(divide="ignore"):
        hole = np.log([0.5, 0.5, 0.0])
    for update in (spin_update, gsil_update):
        with pytest.raises(InfiniteDivergenceError):
            update(p, hole, 1.0)
        with pytest.raises(InvalidHyperparameterError):
            update(p, p, 0.0)
        with pytest.raises(ShapeError):
            update(p, _logs(4, 0), 1.0)
    with pytest.raises(ShapeError):
        gsil_loss(torch.zeros(2, 3), torch.zeros(2, 3), 1.0)


# Distillation


def test_distillation_losses_are_the_two_divergences():
    rng = np.random.default_rng(0)
    teacher, logits = rng.dirichlet(np.ones(4), size=5), rng.normal(size=(5, 4))
    student = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    given = torch.tensor(logits), torch.tensor(teacher)
    assert np.abs(distillation_loss(*given).numpy() - kl_divergence(teacher, student)).max() < 1e-12
    backwards = distillation_loss(*given, "reverse").numpy()
    assert np.abs(backwards - kl_divergence(student, teacher)).max() < 1e-12
    sure = torch.eye(4)[:1]
    assert float(distillation_loss(given[0][:1].float(), sure)) == pytest.approx(
        -np.log(student[0, 0]), abs=1e-6
    )
    with pytest.raises(InfiniteDivergenceError):
        distillation_loss(given[0][:1], sure, "reverse")
    with pytest.raises(InvalidHyperparameterError):
        distillation_loss(*given, "sideways")
    with pytest.raises(ShapeError):
        distillation_loss(given[0], given[1][:2])


def test_a_distilled_table_is_the_minimum():
    rng = np.random.default_rng(0)
    teacher, states = rng.dirichlet(np.ones(3), size=30), rng.integers(2, size=30)
    table = distil_table(states, teacher, 3)
    for s in range(2):
        mine = teacher[states == s]

        def loss(z, mine=mine):
            rows = torch.tensor(np.tile(z, (len(mine), 1)))
            return float(distillation_loss(rows, torch.tensor(mine)).sum())

        found = minimize(loss, np.zeros(3), method="BFGS")
        assert loss(np.log(table[s])) <= found.fun + 1e-8
    assert np.abs(table[2] - 1 / 3).max() < 1e-12
    with pytest.raises(ShapeError):
        distil_table(states, teacher[:3], 3)
    with pytest.raises(ShapeError):
        distil_table(states, teacher, 1)
    with pytest.raises(NotStochasticError):
        distil_table(states, 2 * teacher, 3)
    with pytest.raises(InvalidHyperparameterError):
        distil_table(states, teacher, 3, -1.0)


# The recital


def test_the_performer_makes_no_mistake_and_a_student_that_knows_all_does_not_either():
    world, rng = Recital(), np.random.default_rng(0)
    prompts = world.prompts(60, rng)
    heard = [world.hear(x, world.perform(x, 40, rng)) for x in prompts]
    assert not any(h.mistake.any() for h in heard)
    table = np.zeros((world.n_states, world.vocabulary))
    for piece in range(world.pieces):
        for note in range(world.notes):
            table[world.state(piece, note, False), world.right(piece, note, False)] = 0.5
        table[world.state(piece, 0, True), world.sorry] = 1.0
    assert not any(world.hear(x, world.write(table, x, 40, rng)).mistake.any() for x in prompts)


def test_a_mistake_stays_until_it_is_put_right():
    world = Recital()
    right = world.right(3, 0, False)
    wrong = next(n for n in range(world.notes) if n not in right)
    after = world.right(3, right[0], False)
    prompt = [world.notes + 1 + 3, 0]
    heard = world.hear(prompt, [right[0], world.sorry, wrong, world.sorry, after[0]])
    assert heard.mistake.tolist() == [False, True, True, False, False]
    assert heard.lost.tolist() == [False, False, True, True, False]
    assert heard.rows[2, world.sorry] == 1
    assert np.flatnonzero(heard.rows[4]).tolist() == sorted(after)
    assert heard.states[1] == world.state(3, right[0], False)
    assert heard.states[2] == world.state(3, 0, True)
    with pytest.raises(ResponseError):
        world.hear([0, 0], [1])
    with pytest.raises(ResponseError):
        world.hear(prompt, [world.vocabulary])
    with pytest.raises(InvalidHyperparameterError):
        Recital(notes=2)
