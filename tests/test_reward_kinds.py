"""Regularised, generative and cross-prompt reward models, and the study that compares them.

Oracles: the plain reward model, an independent forward pass, closed forms, Newton's method on every
pair of a small data set.
"""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from irlbook.data.records import Preference
from irlbook.errors import (
    DataNotFoundError,
    InvalidDataError,
    InvalidHyperparameterError,
    ShapeError,
    TokenizerError,
    UnsupportedModelError,
)
from irlbook.lm import models, tokenization
from irlbook.lm.logprobs import padded_token_logps, sequence_logps
from irlbook.posttraining import reward_kinds_study as study
from irlbook.posttraining import reward_model
from irlbook.posttraining.cross_prompt import (
    cross_prompt_objective,
    cross_prompt_pairs,
    soft_preference_loss,
    tied_weight,
)
from irlbook.posttraining.generative_judge import (
    answer_log_odds,
    both_orders,
    judge_examples,
    judge_log_odds,
    judge_question,
)
from irlbook.posttraining.regularised_reward import (
    RegularisedScorer,
    generation_loss,
    regularised_objective,
    regularised_reward_loss,
)
from irlbook.posttraining.reward_model import RewardScorer, bradley_terry_loss
from irlbook.tasks import reviews
from irlbook.training import TrainingConfig, score, train

PAIRS = [
    Preference("good?", "yes it is", "no"),
    Preference("bad?", "no", "it is it is"),
    Preference("not good?", "it is", "no it is not"),
    Preference("what?", "yes", "it"),
]


@pytest.fixture(scope="module")
def tokens():
    return tokenization.train_tokenizer(["good? bad? what? yes no it is not"] * 9, 300)


@pytest.fixture(scope="module")
def folder(tokens, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    models.save(models.tiny_lm(tokens, hidden=16, layers=1, heads=2, seed=3), tokens, path)
    return path


def coded(tokens, pairs=PAIRS):
    return [
        (
            tokenization.encode_prompt(tokens, p.prompt),
            [tokenization.encode_response(tokens, y) for y in (p.chosen, p.rejected)],
        )
        for p in pairs
    ]


def plain(folder, seed=0):
    return RewardScorer(models.load_reward_model(folder, new_head=True, seed=seed)[0])


def regularised(folder, seed=0):
    return RegularisedScorer(models.load_lm(folder)[0], plain(folder, seed).model.score.weight)


# Regularised --------------------------------------------------------------------------------------


def test_at_weight_0_the_regularised_loss_is_the_plain_one_and_at_1_it_is_sft_alone():
    rng = np.random.default_rng(0)
    rewards = torch.tensor(rng.normal(size=(6, 2)), requires_grad=True)
    logps = torch.tensor(-20 * rng.random(6), requires_grad=True)
    plain_loss = bradley_terry_loss(rewards)
    assert torch.equal(regularised_reward_loss(rewards, logps, 0.0), plain_loss)
    whole = regularised_reward_loss(rewards, logps, 1.0, 0.3)
    (pull,) = torch.autograd.grad(whole.sum(), rewards, retain_graph=True)
    assert not pull.abs().max()
    by_hand = np.log1p(np.exp(-0.3 * logps.detach().numpy()))
    np.testing.assert_allclose(whole.detach().numpy(), by_hand, atol=1e-12)
    half = regularised_reward_loss(rewards, logps, 0.25, 0.3)
    np.testing.assert_allclose(
        half.detach().numpy(), 0.75 * plain_loss.detach().numpy() + 0.25 * by_hand, atol=1e-12
    )


def test_the_generation_loss_pulls_every_response_about_alike():
    logps = torch.linspace(-300, 0, 61, dtype=torch.float64, requires_grad=True)
    loss = generation_loss(logps, 0.1)
    (slope,) = torch.autograd.grad(loss.sum(), logps)
    assert loss.min().item() == pytest.approx(np.log(2))
    assert ((-slope >= 0.05 - 1e-15) & (-slope <= 0.1)).all()


def test_the_regularised_scorer_gives_the_plain_reward_and_the_models_log_probability(
    folder, tokens
):
    groups = coded(tokens)
    scorer = regularised(folder).eval()
    found = score(scorer, groups, 2)
    assert torch.allclose(found[..., 0], score(plain(folder).eval(), groups, 2), atol=1e-6)
    lengths = torch.tensor([len(y) for _, ys in groups for y in ys])
    steps = padded_token_logps(scorer.model, groups)
    assert torch.allclose(found[..., 1].flatten(), sequence_logps(steps, lengths), atol=1e-5)


def test_trained_at_weight_0_it_is_the_plain_reward_model_and_else_it_is_not(folder, tokens):
    config = TrainingConfig(steps=4, batch_size=2, progress=False, tensorboard=False)
    groups, rewards, losses = coded(tokens), {}, {}
    scorer = plain(folder)
    losses["plain"] = train(scorer, groups, reward_model.objective(), config).column("loss")
    rewards["plain"] = score(scorer, groups, 2)
    for weight in (0.0, 0.5):
        scorer = regularised(folder)
        result = train(scorer, groups, regularised_objective(weight), config)
        losses[weight], rewards[weight] = result.column("loss"), score(scorer, groups, 2)[..., 0]
        with torch.no_grad():
            likelier = (
                score(scorer, groups, 2)[:, 0, 1] - score(regularised(folder), groups, 2)[:, 0, 1]
            )
        if weight:
            assert float(likelier.mean()) > 0.1  # it still learns to write what was preferred
    np.testing.assert_allclose(losses[0.0], losses["plain"], atol=1e-5)
    assert torch.allclose(rewards[0.0], rewards["plain"], atol=1e-4)
    assert not torch.allclose(rewards[0.5], rewards["plain"], atol=1e-3)


# Generative ---------------------------------------------------------------------------------------


def test_both_orders_is_a_preference_probability_whatever_the_judge_says():
    z = torch.tensor(np.random.default_rng(0).normal(size=(50, 2)) * 3)
    for how in ("log-odds", "probability"):
        one, other = both_orders(z, how), both_orders(z.flip(1), how)
        assert float((torch.sigmoid(one) + torch.sigmoid(other) - 1).abs().max()) < 1e-12
    p = torch.sigmoid(z)
    mean = (p[:, 0] + 1 - p[:, 1]) / 2
    assert float((torch.sigmoid(both_orders(z, "probability")) - mean).abs().max()) < 1e-12


def test_a_bias_for_a_position_is_removed_exactly_from_the_log_odds_and_shrinks_probabilities():
    d = torch.linspace(-3, 3, 61, dtype=torch.float64)
    for bias in (0.0, 0.7, -2.0):
        z = torch.stack([d + bias, -d + bias], dim=1)
        assert float((both_orders(z) - d).abs().max()) < 1e-12
        softer = both_orders(z, "probability")
        assert float((softer + softer.flip(0)).abs().max()) < 1e-12
        assert ((softer * d) >= -1e-12).all() and (softer.abs() <= d.abs() + 1e-12).all()
        assert bool(softer[-1] < d[-1] - 0.1) == (bias != 0)


def test_the_judge_is_asked_in_both_orders_and_read_at_one_token(folder, tokens):
    model, _ = models.load_lm(folder)
    answers = [tokenization.encode_response(tokens, a, ended=False) for a in "AB"]
    groups = judge_examples(tokens, PAIRS)
    texts = [tokenization.decode(tokens, question) for question, _ in groups]
    for k, p in enumerate(PAIRS):
        assert judge_question(p.prompt, p.chosen, p.rejected) in texts[2 * k]
        assert judge_question(p.prompt, p.rejected, p.chosen) in texts[2 * k + 1]
    assert [y for _, (y,) in groups] == answers * len(PAIRS)
    found = judge_log_odds(model, tokens, PAIRS)
    for (question, _), z in zip(groups, found.flatten(), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([question])).logits[0, -1].double()
        assert float(logits[answers[0][0]] - logits[answers[1][0]]) == pytest.approx(
            float(z), abs=1e-5
        )
    odds = answer_log_odds(torch.log(torch.tensor([[0.3, 0.1]])))
    assert float(torch.sigmoid(odds)) == pytest.approx(0.75)


def test_an_answer_of_two_tokens_is_refused(tokens, monkeypatch):
    monkeypatch.setattr("irlbook.posttraining.generative_judge.ANSWERS", ("yes no", "B"))
    with pytest.raises(TokenizerError, match="train a tokenizer"):
        judge_examples(tokens, PAIRS)


# Across prompts -----------------------------------------------------------------------------------


def random_records(rng, n=30, liked=0.8):
    """Records whose responses are named: who wrote them, which of the two, with an artifact or not;
    the artifact stands more often in the chosen one."""
    return [
        Preference(
            f"x{i}", f"{i} + {int(rng.random() < liked)}", f"{i} - {int(rng.random() < 0.3)}"
        )
        for i in range(n)
    ]


def parts(response):
    owner, side, artifact = response.split()
    return int(owner), side, int(artifact)


def test_each_record_gets_its_8_wins_and_6_ties_and_every_response_wins_as_often_as_it_loses():
    records = random_records(np.random.default_rng(1), n=7)
    added = cross_prompt_pairs(records, np.random.default_rng(2))
    assert len(added.records) == len(added.wins) == 14 * len(records)
    won, lost = {}, {}
    for p, label in zip(added.records, added.wins.tolist(), strict=True):
        own, (first, second) = int(p.prompt[1:]), (parts(p.chosen)[0], parts(p.rejected)[0])
        if label == 1:
            assert first == own != second
            won[p.chosen] = won.get(p.chosen, 0) + 1
            lost[p.rejected] = lost.get(p.rejected, 0) + 1
        else:
            assert label == 0.5 and own not in (first, second)
    assert won == lost == {y: 4 for p in records for y in (p.chosen, p.rejected)}
    by_prompt = [
        frozenset((p.chosen, p.rejected)) for p in added.records if p.prompt == "x0"
    ]  # with the original: all 15 pairs of six responses
    six = set().union(*by_prompt)
    assert set(by_prompt) | {frozenset((records[0].chosen, records[0].rejected))} == {
        frozenset(pair) for pair in itertools.combinations(six, 2)
    }


def test_some_of_the_pairs_can_be_kept():
    added = cross_prompt_pairs(PAIRS, np.random.default_rng(0), won=2, tied=1)
    assert added.wins.tolist() == [1.0, 1.0, 0.5] * len(PAIRS)
    with pytest.raises(InvalidDataError):
        cross_prompt_pairs(PAIRS[:2], np.random.default_rng(0))
    with pytest.raises(InvalidHyperparameterError, match="won is 9 .* from 0 to 8"):
        cross_prompt_pairs(PAIRS, np.random.default_rng(0), won=9)


def test_another_prompt_is_another_prompt_where_prompts_come_again():
    rng = np.random.default_rng(0)
    asked = [f"x{k}" for k in rng.integers(9, size=90)]
    records = [Preference(x, f"{x} {i} +", f"{x} {i} -") for i, x in enumerate(asked)]
    added = cross_prompt_pairs(records, rng)
    for p, label in zip(added.records, added.wins.tolist(), strict=True):
        own = [y.split()[0] == p.prompt for y in (p.chosen, p.rejected)]
        assert own == ([True, False] if label == 1 else [False, False])
    with pytest.raises(InvalidDataError):
        cross_prompt_pairs([PAIRS[0], PAIRS[0], *PAIRS[1:3]], rng)


def newton(x, wins, l2=0.0):
    """Bradley-Terry weights for differences x (P, K) and chances that the first wins (P,)."""
    w = np.zeros(x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-x @ w))
        step = np.linalg.solve(
            x.T @ (x * (p * (1 - p))[:, None]) + l2 * np.eye(len(w)), x.T @ (wins - p) - l2 * w
        )
        w = w + step
    return w


def differences(records):
    """(P, 2): written for this prompt; the artifact."""
    return np.array(
        [
            [
                (parts(p.chosen)[0] == int(p.prompt[1:])) * 1.0
                - (parts(p.rejected)[0] == int(p.prompt[1:])),
                parts(p.chosen)[2] - parts(p.rejected)[2],
            ]
            for p in records
        ]
    )


def test_on_the_added_pairs_an_artifact_has_weight_0_in_any_data_set():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        records = random_records(rng, n=60)
        added = cross_prompt_pairs(records, rng)
        before = newton(differences(records)[:, 1:], np.ones(len(records)))
        after = newton(differences(added.records), added.wins.numpy(), l2=1.0)
        assert before[0] > 0.5
        assert after[0] > 1 and abs(after[1]) < 1e-12


def test_together_the_ties_alone_hold_the_artifact_once_the_prompt_decides():
    records = random_records(np.random.default_rng(3), n=60)
    added = cross_prompt_pairs(records, np.random.default_rng(4))
    x = np.concatenate([differences(records), differences(added.records)])
    wins = np.concatenate([np.ones(len(records)), added.wins.numpy()])
    d = differences(records)[:, 1]
    ties = (added.wins.numpy() == 0.5) & (differences(added.records)[:, 1] != 0)
    closed = tied_weight((d > 0).sum(), (d < 0).sum(), ties.sum())
    sure = x[:, 0] * 60  # the prompt decides, whatever the artifact
    w = 0.0
    for _ in range(50):
        p = 1 / (1 + np.exp(-(sure + w * x[:, 1])))
        w += (x[:, 1] @ (wins - p)) / (x[:, 1] ** 2 @ (p * (1 - p)))
    assert w == pytest.approx(closed, abs=1e-10)
    assert 0 < closed < tied_weight((d > 0).sum(), (d < 0).sum(), 0.0)


def test_the_tied_weight_is_the_planted_one_without_ties_and_goes_to_0():
    assert tied_weight(0.6, 0.2, 0.0) == pytest.approx(np.log(3))
    values = [tied_weight(0.6, 0.2, m) for m in (0, 1, 10, 1000)]
    assert (np.diff(values) < 0).all() and values[-1] < 1e-3
    for wrong in ((1.0, 0.0, 0.0), (-1.0, 1.0, 4.0), (1.0, 1.0, -1.0)):
        with pytest.raises(InvalidHyperparameterError):
            tied_weight(*wrong)


def test_the_soft_loss_is_the_plain_one_at_1_and_least_at_the_logit():
    rewards = torch.tensor(np.random.default_rng(0).normal(size=(9, 2)))
    one = soft_preference_loss(rewards, torch.ones(9, dtype=torch.float64))
    assert float((one - bradley_terry_loss(rewards)).abs().max()) < 1e-15
    wins = torch.tensor([0.5, 0.8, 0.1], dtype=torch.float64)
    d = torch.logit(wins).requires_grad_()
    loss = soft_preference_loss(torch.stack([d, torch.zeros_like(d)], dim=1), wins)
    assert float(torch.autograd.grad(loss.sum(), d)[0].abs().max()) < 1e-12
    by_hand = -wins * logsigmoid(d) - (1 - wins) * logsigmoid(-d)
    assert torch.allclose(loss, by_hand)


def test_soft_labels_reach_the_loss_of_training(folder, tokens):
    added = cross_prompt_pairs(PAIRS, np.random.default_rng(0))
    scorer, groups = plain(folder).eval(), coded(tokens, added.records)
    scorer.model.score.weight.data *= 300  # rewards that differ
    want = soft_preference_loss(score(scorer, groups, 2), added.wins).mean()
    config = TrainingConfig(steps=1, batch_size=len(groups), progress=False, tensorboard=False)
    extra = {"wins": added.wins}
    result = train(scorer, groups, cross_prompt_objective(), config, extra=extra)
    assert result.column("loss")[0] == pytest.approx(float(want), abs=1e-5)
    assert not any("accuracy" in row for row in result.history)
    hard = bradley_terry_loss(score(plain(folder).eval(), groups, 2) * 300).mean()
    assert abs(float(want - hard)) > 1e-3


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: generation_loss(torch.zeros(2), 0.0), InvalidHyperparameterError),
        (
            lambda: regularised_reward_loss(torch.zeros(2, 2), torch.zeros(2), 1.1),
            InvalidHyperparameterError,
        ),
        (lambda: regularised_reward_loss(torch.zeros(2, 2), torch.zeros(3)), ShapeError),
        (
            lambda: RegularisedScorer(torch.nn.Linear(2, 2), torch.zeros(1, 2)),
            UnsupportedModelError,
        ),
        (lambda: answer_log_odds(torch.zeros(3)), ShapeError),
        (lambda: both_orders(torch.zeros(2, 3)), ShapeError),
        (lambda: both_orders(torch.zeros(2, 2), "mean"), InvalidHyperparameterError),
        (lambda: soft_preference_loss(torch.zeros(2, 2), torch.ones(3)), ShapeError),
        (
            lambda: soft_preference_loss(torch.zeros(2, 2), torch.tensor([7.0, 1.0])),
            InvalidHyperparameterError,
        ),
    ],
)
def test_wrong_input_is_named(call, error):
    with pytest.raises(error):
        call()


# The study ----------------------------------------------------------------------------------------

KINDS = {"plain, honest", "grm, honest", "rrm, honest", "plain, likes length", "rrm, likes length"}
SMALL = study.Study(
    pairs=12, judge_pairs=12, test_pairs=20, epochs=1.0, judge_epochs=1.0, prompts=2, samples=4
)


def test_a_small_study_is_made_and_goes_on_where_it_stopped(tmp_path, capsys):
    out = tmp_path / "kinds.json"
    command = ["--seeds", "50", "--parts", str(tmp_path / "parts"), "--out", str(out)]
    assert study.main([*command, "--jobs", "few"], SMALL) == 0
    assert study.main(command, SMALL) == 0
    found = study.load(out)
    assert set(found["runs"]) == {"few", "more"}
    assert set(found["runs"]["few"]["50"]) == KINDS
    assert json.loads(out.read_text())["settings"]["pairs"] == 12
    with pytest.raises(DataNotFoundError, match="reward_kinds_study"):
        study.load(tmp_path / "none.json")


def test_a_labeller_who_likes_length_chooses_the_longer_one_more_often():
    m = study.Material(50, SMALL)
    texts = m.texts("seen", 300, 1)

    def longer(pairs):
        return np.mean([len(p.chosen) > len(p.rejected) for p in pairs])

    assert longer(m.labelled(texts, 1.0, 5)) > longer(m.labelled(texts, 0.0, 5)) + 0.1
    assert not set(m.prompts["seen"]) & set(m.prompts["new"])
    assert len(m.prompts["new"]) == 24


def test_labels_follow_gold_and_a_taste_for_length():
    m = study.Material(50, SMALL)
    texts = m.texts("seen", 4000, 1)
    assert len({p.prompt for p in texts}) > 20
    assert all(p.chosen != p.rejected and p.prompt in m.prompts["seen"] for p in texts)
    found = m.labelled(texts, 0.3, 5)
    kept = np.array([p == q for p, q in zip(texts, found, strict=True)])

    def worth(text, p):
        tokens = tokenization.encode_response(m.tokenizer, text, ended=False)
        return reviews.gold(p.prompt, text) + 0.3 * len(tokens)

    gap = np.array([worth(p.chosen, p) - worth(p.rejected, p) for p in texts])
    chance = 1 / (1 + np.exp(-gap))
    error = np.sqrt((chance * (1 - chance)).sum())
    assert abs((kept - chance).sum()) < 4 * error
    assert abs(((kept - chance) * np.sign(gap)).sum()) < 4 * error
    assert all(
        {p.chosen, p.rejected} == {q.chosen, q.rejected} and p.prompt == q.prompt
        for p, q in zip(texts, found, strict=True)
    )


def test_ranks_and_pairs_of_the_study_by_hand():
    truth = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [3.0, 1.0, 2.0]])
    said = np.array([[0.1, 0.2, 0.9], [3.0, 2.0, 1.0], [0.0, 0.5, 0.2]])
    assert study._rank(said, truth) == pytest.approx(0.0)
    assert study._rank(said[:2], truth[:2]) == pytest.approx(1.0)
    assert study._as_pairs(np.array([0.5, -2.0])).tolist() == [[0.5, 0.0], [-2.0, 0.0]]
    records = [Preference(p, "It was good.", "It was bad.") for p in reviews.PROMPTS][:3]
    gold = study._gold(records)
    for row, p in zip(gold, records, strict=True):
        wanted = [reviews.gold(p.prompt, y) for y in ("It was good.", "It was bad.")]
        assert row.tolist() == wanted


def test_the_stored_study_is_that_of_the_settings():
    stored = study.load()
    assert stored["settings"] == json.loads(json.dumps(study.asdict(study.Study())))
    assert all(set(by_seed) == set("01234") for by_seed in stored["runs"].values())
