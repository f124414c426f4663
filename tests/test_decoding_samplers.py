"""Guided decoding and populations on a shipped model, against slow loops; and the stored study."""

import numpy as np
import pytest
import torch

from irlbook.decoding import study
from irlbook.decoding.samplers import (
    BeamSampler,
    GuidedSampler,
    KeepBeam,
    PopulationSampler,
    Resample,
    keep_best,
    module_scorer,
)
from irlbook.errors import InvalidHyperparameterError, RewardError, SamplingError
from irlbook.lm import models
from irlbook.lm.sampling import greedy, sample
from irlbook.lm.tokenization import encode_prompt, pad_id, stop_ids
from irlbook.lm.trees import collate
from irlbook.posttraining import book_models
from irlbook.posttraining.reward_model import RewardScorer
from irlbook.posttraining.stored_runs import StoredRuns
from irlbook.tasks import reviews


@pytest.fixture(scope="module")
def world():
    model, tokenizer = book_models.load(0)
    prompts = [encode_prompt(tokenizer, p) for p in list(reviews.PROMPTS)[:3]]
    return model, tokenizer, prompts, list(stop_ids(tokenizer, model))


def length_scorer(groups):
    """Longer is better, and an even last token is better still."""
    return [torch.tensor([len(y) + 0.5 * (y[-1] % 2 == 0) for y in ys]) for _, ys in groups]


def draw(sampler, world, n=2, most=12, seed=3):
    model, _, prompts, stops = world
    return sampler(
        model,
        prompts,
        n,
        max_new_tokens=most,
        stop_ids=stops,
        temperature=1.0,
        seeds=[(seed, i) for i in range(len(prompts))],
    )


def test_guided_samples_have_the_log_probabilities_of_the_guided_distribution(world):
    model, _, prompts, stops = world
    sampler = GuidedSampler(length_scorer, weight=1.5, top=5)
    drawn = draw(sampler, world)
    steps = 0
    for (prompt, answers), i in zip(drawn.groups, range(3), strict=True):
        assert prompt == list(prompts[i])
        for j, answer in enumerate(answers):
            for t, token in enumerate(answer):
                steps += 1
                with torch.no_grad():
                    logits = model(torch.tensor([prompt + answer[:t]])).logits[0, -1]
                base, those = logits.log_softmax(0).topk(5)
                scores = torch.tensor([t + 1 + 0.5 * (int(k) % 2 == 0) for k in those])
                want = (base + 1.5 * scores).log_softmax(0)[those.tolist().index(token)]
                assert drawn.logps[2 * i + j][t] == pytest.approx(float(want), abs=1e-4)
    assert sampler.generated == steps and sampler.scored == 5 * steps
    assert drawn.responses == draw(GuidedSampler(length_scorer, 1.5, 5), world).responses


def test_guided_scores_meet_the_candidates_that_they_were_asked_for(world):
    """The planted bug is a shift of rows: one prompt's scores at another's candidates."""
    model, tokenizer, prompts, _ = world
    wanted = {tuple(p): 40 + i for i, p in enumerate(prompts)}  # a token for each prompt

    def scorer(groups):
        return [torch.tensor([100.0 * (y[-1] == wanted[tuple(x)]) for y in ys]) for x, ys in groups]

    drawn = draw(GuidedSampler(scorer, 1.0, top=10_000), world, n=3, most=4)
    for prompt, answers in drawn.groups:
        assert all(set(y) == {wanted[tuple(prompt)]} for y in answers)


def test_best_of_n_is_the_best_of_the_same_samples(world):
    model, _, prompts, stops = world
    sampler = PopulationSampler(length_scorer, 4, keep_best)
    drawn = draw(sampler, world, n=1)
    total = 0
    for i, prompt in enumerate(prompts):
        seeds = [(3, i, 0, k, 0) for k in range(4)]
        many = sample(model, [prompt] * 4, max_new_tokens=12, stop_ids=stops, seeds=seeds)
        scores = length_scorer(many.groups)
        best = max(range(4), key=lambda k: float(scores[k][0]))
        assert drawn.responses[i] == many.responses[best]
        assert torch.allclose(drawn.logps[i], many.logps[best], atol=1e-5)
        total += sum(map(len, many.responses))
    assert sampler.generated == sampler.scored == total


@pytest.mark.parametrize("width", [1, 3])
def test_a_beam_keeps_what_a_plain_loop_keeps(world, width):
    model, _, prompts, stops = world
    sampler = BeamSampler(length_scorer, 0.8, width, top=4)
    drawn = draw(sampler, world, n=2, most=9)
    generated = 0
    for i, prompt in enumerate(prompts):
        beam = [([], 0.0)]  # tokens, log pi of each
        for _ in range(9):
            every = []
            for tokens, logs in beam:
                if tokens and tokens[-1] in stops:
                    every.append((tokens, logs))
                    continue
                generated += 1
                with torch.no_grad():
                    rows = model(torch.tensor([list(prompt) + tokens])).logits[0, -1]
                steps, those = rows.log_softmax(0).topk(4)
                every += [
                    ([*tokens, int(t)], logs + float(s)) for s, t in zip(steps, those, strict=True)
                ]
            worth = [x[1] + 0.8 * (len(x[0]) + 0.5 * (x[0][-1] % 2 == 0)) for x in every]
            beam = [every[k] for k in np.argsort(-np.array(worth), kind="stable")[:width]]
        assert drawn.groups[i][1] == [beam[0][0]] * 2
        assert float(drawn.logps[2 * i].sum()) == pytest.approx(beam[0][1], abs=1e-3)
        assert drawn.ended[2 * i] == (beam[0][0][-1] in stops)
    assert sampler.generated == 2 * generated and sampler.scored == 8 * generated


def test_a_beam_of_one_candidate_is_greedy_decoding(world):
    model, _, prompts, stops = world
    drawn = draw(BeamSampler(length_scorer, 0.0, width=1, top=3), world, n=1, most=20)
    assert drawn.responses == greedy(model, prompts, max_new_tokens=20, stop_ids=stops).responses


@pytest.mark.parametrize("select", [keep_best, KeepBeam(2), Resample(0.5)])
def test_populations_give_responses_of_the_model(world, select):
    model, _, prompts, stops = world
    sampler = PopulationSampler(length_scorer, 4, select, block=5)
    drawn = draw(sampler, world)
    assert all(len(y) == 12 or y[-1] in stops for y in drawn.responses)
    assert [y[-1] in stops for y in drawn.responses] == drawn.ended
    prompt, answers = drawn.groups[1]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answers[0]])).logits[0, len(prompt) - 1 : -1]
    want = logits.log_softmax(1).gather(1, torch.tensor(answers[0])[:, None])[:, 0]
    assert torch.allclose(drawn.logps[2].float(), want, atol=1e-4)
    assert sampler.generated >= sum(map(len, drawn.responses))


def test_rules_of_selection():
    rng = np.random.default_rng(0)
    now, before = np.array([1.0, 3.0, 2.0, 0.0]), np.zeros(4)
    assert keep_best(now, before, rng).tolist() == [1, 1, 1, 1]
    assert KeepBeam(2)(now, before, rng).tolist() == [1, 2, 1, 2]
    counts = np.bincount(
        np.concatenate([Resample(0.7)(now, before, rng) for _ in range(4000)]), minlength=4
    )
    want = np.exp(now / 0.7) / np.exp(now / 0.7).sum()
    assert np.abs(counts / counts.sum() - want).max() < 0.01
    assert (Resample(0.01)(now, now, rng) >= 0).all()  # no gain since: all alike


def test_module_scorer_is_the_module_row_by_row(world):
    _, tokenizer, prompts, _ = world
    model, _ = models.load_reward_model(book_models.folder(0), "cpu", new_head=True, seed=1)
    module = RewardScorer(model, "last").eval()
    groups = [(list(prompts[0]), [[5, 6], [7], [8, 9, 10]]), (list(prompts[1]), [[11]] * 20)]
    found = module_scorer(module, pad_id(tokenizer), rows=2)(groups)
    assert [len(x) for x in found] == [3, 20]
    with torch.no_grad():
        for (prompt, prefixes), scores in zip(groups, found, strict=True):
            for prefix, value in zip(prefixes, scores, strict=True):
                alone = module(collate([(prompt, [prefix])], pad_id(tokenizer)))
                assert float(alone[0]) == pytest.approx(float(value), abs=1e-4)


def test_samplers_refuse(world):
    for make in (
        lambda: GuidedSampler(length_scorer, -1.0),
        lambda: GuidedSampler(length_scorer, 1.0, top=0),
        lambda: BeamSampler(length_scorer, -1.0),
        lambda: BeamSampler(length_scorer, 1.0, width=0),
        lambda: BeamSampler(length_scorer, 1.0, top=0),
        lambda: PopulationSampler(length_scorer, 0, keep_best),
        lambda: PopulationSampler(length_scorer, 2, keep_best, block=0),
    ):
        with pytest.raises(InvalidHyperparameterError):
            make()
    nan = PopulationSampler(lambda g: [torch.full((len(y),), np.nan) for _, y in g], 2, keep_best)
    with pytest.raises(RewardError):
        draw(nan, world)
    model, _, prompts, stops = world
    for sampler in (GuidedSampler(length_scorer, 1.0), BeamSampler(length_scorer, 1.0)):
        options = {"max_new_tokens": 3, "stop_ids": stops, "seeds": [0, 1, 2]}
        with pytest.raises(SamplingError):
            sampler(model, prompts, 1, temperature=0.0, **options)


# The study ----------------------------------------------------------------------------------------


def test_truncated_pairs_keep_label_and_length():
    groups = [([1], [[5, 6, 7], [5, 8]]), ([2], [[9], [4, 4, 4, 4]])]
    found = study.truncated(groups, 50, np.random.default_rng(0))
    whole = {1: groups[0][1], 2: groups[1][1]}
    for (prompt,), (winner, loser) in found:
        t = max(len(winner), len(loser))
        assert [winner, loser] == [y[:t] for y in whole[prompt]] and winner != loser
    assert len(found) < 100  # pairs that begin alike are left out
    with pytest.raises(InvalidHyperparameterError):
        study.truncated(groups, 0, np.random.default_rng(0))


def test_the_value_loss_is_a_mean_over_prefixes():
    from irlbook.training.loop import Batch

    tree = collate([([1, 2], [[3, 4]]), ([1], [[5]])])
    batch = Batch(tree, torch.arange(2), None, {"target": torch.tensor([1.0, -1.0])})
    found = study.value_objective().values(torch.tensor([0.0, 3.0, 1.0]), batch)["loss"]
    assert found.tolist() == [pytest.approx((1 + 4) / 2), pytest.approx(4.0)]


def test_the_td_loss_asks_each_prefix_for_the_next_one():
    """Also across the border of two responses, where a shifted target would leak."""
    from irlbook.training.loop import Batch

    tree = collate([([1, 2], [[3, 4, 5]]), ([1], [[6, 7]])])
    batch = Batch(tree, torch.arange(2), None, {"target": torch.tensor([1.0, -1.0])})
    scores = torch.tensor([0.0, 3.0, 2.0, 5.0, 1.0], requires_grad=True)
    loss = study.td_objective().values(scores, batch)["loss"]
    assert loss.tolist() == [
        pytest.approx((3**2 + 1**2 + 1**2) / 3),
        pytest.approx((4**2 + 2**2) / 2),
    ]
    loss.sum().backward()  # the target is held fixed
    want = [2 * (0 - 3) / 3, 2 * (3 - 2) / 3, 2 * (2 - 1) / 3, 2 * (5 - 1) / 2, 2 * (1 + 1) / 2]
    assert scores.grad.tolist() == pytest.approx(want)


def test_td_and_monte_carlo_agree_on_responses_of_one_token():
    from irlbook.training.loop import Batch

    tree = collate([([1, 2], [[3]]), ([1], [[5]])])
    batch = Batch(tree, torch.arange(2), None, {"target": torch.tensor([1.0, -1.0])})
    scores = torch.tensor([0.5, 2.0])
    one, other = study.value_objective(), study.td_objective()
    assert (
        one.values(scores, batch)["loss"].tolist() == other.values(scores, batch)["loss"].tolist()
    )


def test_the_start_of_the_study_made_anew():
    """The plain start of seed 0, whose samples depend on no reward model: they must be the same."""
    stored = StoredRuns(study.NAME, study.settings(study.Study()), here=())
    scorers = study.Scorers(0)
    scorers.__dict__["proxy"] = _Zero()  # stands for the proxy, which takes half a minute to train
    now, then = study.run(scorers, "start"), stored.stored("start", 0)
    for name in ("gold", "length", "surprise", "distinct"):
        assert now[name] == pytest.approx(then[name], rel=0.02, abs=0.05)
    with pytest.raises(InvalidHyperparameterError):
        study.run(scorers, "guess")


class _Zero(torch.nn.Module):
    def forward(self, tree):
        return torch.zeros(len(tree.lengths))


def test_a_value_of_each_token_ends_with_that_of_the_last(world):
    _, tokenizer, prompts, _ = world
    model, _ = models.load_reward_model(book_models.folder(0), "cpu", new_head=True, seed=1)
    tree = collate([(list(prompts[0]), [[5, 6], [7, 8, 9]])], pad_id(tokenizer))
    with torch.no_grad():
        every = study.TokenValues(model).eval()(tree)
        last = RewardScorer(model, "last").eval()(tree)
    assert every.shape == (5,) and torch.allclose(every[[1, 4]], last, atol=1e-6)


def test_the_check_compares_with_what_is_stored(monkeypatch, capsys):
    monkeypatch.setattr(study.Scorers, "proxy", _Zero())
    stored = StoredRuns(study.NAME, study.settings(study.Study()), here=()).stored("start", 0)
    monkeypatch.setattr(study, "CHECKED", ("start",))
    assert study.main(["--check"]) == int(abs(stored["proxy"]) >= 0.1)  # gold is the same
    assert "largest difference" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        study.main([])


def test_every_condition_is_stored_for_every_seed():
    plan = study.Study()
    stored = StoredRuns(study.NAME, study.settings(plan), here=())
    for seed in plan.seeds:
        for condition in study.CONDITIONS:
            found = stored.stored(condition, seed)
            assert found["generated"] > 0 and 0 < found["distinct"] <= 1
            assert (found["training_tokens"] > 0) == condition.startswith("expert")
