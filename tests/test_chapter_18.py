"""Each displayed equation of chapter 18 that has code, named after it; and its stored study."""

import numpy as np
import pytest
import torch

from irlbook.errors import DataNotFoundError
from irlbook.imitation.adversarial import best_discriminator
from irlbook.lm.enumerable import EnumerableLM, kl_from_logps, tilted
from irlbook.lm.token_table import TokenTable
from irlbook.lm.trees import collate
from irlbook.posttraining import demonstration_study as study
from irlbook.posttraining.demonstration_reward import log_ratio_reward
from irlbook.posttraining.on_policy_distillation import distil_table, distillation_loss
from irlbook.posttraining.spin import spin_population_loss, spin_update
from irlbook.posttraining.tied_policy import TiedPolicy, response_occupancy


@pytest.fixture
def lm():
    return EnumerableLM.create(
        ("a", "b", "."), 3, lambda prefixes: np.tile([0.5, 0.3, 0.2], (len(prefixes), 1))
    )


@pytest.fixture
def expert(lm):
    return np.log(np.random.default_rng(0).dirichlet(np.ones(len(lm.responses))))


def test_eq_18_1_a_prefix_is_passed_by_the_responses_that_begin_with_it(lm, expert):
    rho = response_occupancy(lm, expert)
    ids = lm.response_ids()
    for state in np.flatnonzero(lm.children[:, 0] >= 0)[:5]:
        prefix = lm.prefixes[state, : lm.lengths[state]].tolist()
        for token in range(3):
            through = [y[: len(prefix) + 1] == [*prefix, token] for y in ids]
            assert rho[state, token] == pytest.approx(np.exp(expert)[through].sum(), abs=1e-12)


def test_eq_18_2_the_forward_kl_is_minus_the_log_likelihood_up_to_a_constant(lm, expert):
    first, second = (
        np.log(np.random.default_rng(k).dirichlet(np.ones(len(expert)))) for k in (1, 2)
    )
    by_kl = kl_from_logps(expert, first) - kl_from_logps(expert, second)
    assert by_kl == pytest.approx(np.exp(expert) @ (second - first), abs=1e-12)


def test_eq_18_3_the_shared_row_is_the_average_of_the_demonstrators(lm, expert):
    tied = TiedPolicy(lm, np.minimum(lm.lengths, 2))
    rho, policy = response_occupancy(lm, expert), tied.cover(expert)
    for place in range(3):
        here = (lm.lengths == place) & (lm.children[:, 0] >= 0)
        want = rho[here].sum(0) / rho[here].sum()
        assert np.abs(policy[here] - want).max() < 1e-12


def test_eq_18_4_the_logit_of_the_best_discriminator(lm, expert):
    other = lm.sequence_log_probabilities()
    d = best_discriminator(np.exp(expert), np.exp(other))
    assert np.abs(np.log(d) - np.log1p(-d) - log_ratio_reward(expert, other)).max() < 1e-10


def test_eq_18_5_the_gradient_is_a_policy_gradient_on_the_reward(lm, expert):
    tied = TiedPolicy(lm, np.minimum(lm.lengths, 2))
    logits = np.random.default_rng(1).normal(size=(3, 3))
    policy = tied.policy(logits)
    log_pi = lm.sequence_log_probabilities(policy)
    want = np.zeros((3, 3))
    np.add.at(want, tied.groups, -lm.policy_gradient(log_ratio_reward(expert, log_pi), policy))
    assert np.abs(tied.reverse_kl(logits, expert)[1] - want).max() < 1e-12


def test_eq_18_6_a_product_of_quality_and_habits_is_paid_as_their_sum(lm):
    rng = np.random.default_rng(2)
    quality, habit = rng.normal(size=(2, len(lm.responses)))
    start = lm.sequence_log_probabilities()
    paid = log_ratio_reward(tilted(start, quality + habit, 1.0)[0], start)
    assert np.ptp(paid - quality - habit) < 1e-12


def test_eq_18_7_and_18_8_the_tilted_start_goes_to_sft_and_beyond(lm, expert):
    start = lm.sequence_log_probabilities()
    reward = log_ratio_reward(expert, start)
    assert np.abs(tilted(start, reward, 1.0)[0] - expert).max() < 1e-12
    beyond = (1 - 1 / 0.4) * start + expert / 0.4
    beyond -= np.logaddexp.reduce(beyond)
    assert np.abs(tilted(start, reward, 0.4)[0] - beyond).max() < 1e-12


def test_eq_18_9_and_18_10_the_round_of_spin(lm, expert):
    start = lm.sequence_log_probabilities()
    for lam in (0.4, 2.0):
        after = spin_update(expert, start, lam)
        least = spin_population_loss(after, expert, start, lam)
        rng = np.random.default_rng(3)
        for _ in range(20):
            near = after + 0.05 * rng.normal(size=len(after))
            near -= np.logaddexp.reduce(near)
            assert spin_population_loss(near, expert, start, lam) > least
        before_, after_ = (expert - x - (expert - x).mean() for x in (start, after))
        assert np.abs(after_ - (1 - 1 / lam) * before_).max() < 1e-10


def test_eq_18_11_the_table_of_least_loss(lm):
    rng = np.random.default_rng(4)
    teacher = rng.dirichlet(np.ones(4), size=6)
    rows = np.log(np.repeat(distil_table(np.zeros(6, int), teacher, 1), 6, axis=0))
    slope = torch.tensor(rows, requires_grad=True)
    distillation_loss(slope, torch.tensor(teacher)).sum().backward()
    assert slope.grad.sum(0).abs().max() < 1e-12


# The stored study


def test_the_sets_of_prompts_do_not_overlap():
    for seed in range(5):
        material = study.Demonstrated(seed)
        seen, new, topics = (set(material.judged[k]) for k in ("seen", "new prompts", "new topics"))
        assert not (seen & new or seen & topics or new & topics)
        assert not set(material.shown_prompts) & (new | topics)
        assert len(material.shown_prompts) == 48 and len(topics) == len(new) == 24
        shown = {d.prompt for d in material.shown}
        assert shown <= set(material.shown_prompts)


def test_every_job_of_every_seed_is_stored():
    stored = study.load()
    assert set(stored["runs"]) == set(study.JOBS)
    assert all(set(runs) == set("01234") for runs in stored["runs"].values())
    assert stored["settings"]["demonstrations"] == study.Settings().demonstrations
    with pytest.raises(DataNotFoundError, match="demonstration_study"):
        study.load("nowhere.json")
    with pytest.raises(DataNotFoundError, match="no job"):
        study.do(study.Demonstrated(0), "longest")


def test_gold_of_the_start_is_that_of_the_stored_run():
    """On every set of prompts, before any training: cheap, and made anew."""
    stored = study.load()["runs"]
    material = study.Demonstrated(0)
    looked = material.looked_at(material.start())
    for name, value in looked.items():
        assert abs(value - stored["longer"]["0"][f"gold {name}"][0]) < 0.1
    drawn = material.sample(material.start(), material.judged["seen"], 16, 8)
    gold = material.gold(material.judged["seen"], drawn).mean()
    assert abs(gold - stored["choice"]["0"]["look"]["seen"]["start"]) < 0.05


def test_ranks_are_compared_within_the_prompts_whose_gold_differs():
    gold = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [3.0, 1.0, 2.0]])
    said = np.array([[0.1, 0.2, 0.9], [3.0, 2.0, 1.0], [0.0, 0.5, 0.2]])
    assert study._rank(said, gold) == pytest.approx((1.0 - 1.0) / 2)
    assert study._rank(said[:2], gold[:2]) == pytest.approx(1.0)


def test_how_usual_a_response_is_counts_by_token(lm):
    table = TokenTable(lm)
    tree = collate([((0,), [[0, 2], [1, 1, 0]])])
    found = study.MeanLogProbability(table)(tree).detach().numpy()
    np.testing.assert_allclose(found, [np.log(0.5 * 0.2) / 2, np.log(0.3 * 0.3 * 0.5) / 3])


def test_a_seed_starts_from_its_own_model_and_draws_its_own_demonstrations():
    one, other = study.Demonstrated(0), study.Demonstrated(5)
    assert (one.base, other.base) == (0, 0) and study.Demonstrated(3).base == 3
    first = one.demonstrations(20, 7, one.shown_prompts)
    assert first == one.demonstrations(20, 7, one.shown_prompts) and len(first) == 20
    assert first != one.demonstrations(20, 8, one.shown_prompts)
    assert first != other.demonstrations(20, 7, one.shown_prompts)
    assert {d.prompt for d in first} <= set(one.shown_prompts)
