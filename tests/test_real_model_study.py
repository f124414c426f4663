"""The study of chapter 23 on the book's own model: its measures, its jobs, and how it goes on."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from irlbook.data.records import Preference
from irlbook.errors import (
    CheckpointError,
    DataNotFoundError,
    MissingDependencyError,
    ShapeError,
    as_command,
)
from irlbook.lm.tokenization import decode, end_id
from irlbook.lm.trees import collate
from irlbook.posttraining import book_models
from irlbook.posttraining.real_model import (
    frontier,
    human_preferences,
    policies,
    sentiment,
    silent_bugs,
    study,
)
from irlbook.posttraining.real_model.frontier import Evaluation
from irlbook.posttraining.real_model.policies import PolicyRun, Task
from irlbook.posttraining.reward_model import Embedder, embed
from irlbook.training.loop import Batch, score

TASK = Task(
    max_new_tokens=8,
    train_samples=4,
    pool_samples=6,
    held_out_samples=2,
    topics=4,
    held_out=3,
)


class Lexicon:
    """A stand-in of the shape of VADER's analyser: the share of e among the letters."""

    lexicon = {"good": 1.9, "bad": -2.5}

    def polarity_scores(self, text):
        return {"compound": 2 * text.count("e") / (len(text) + 1) - 0.1}


@pytest.fixture(autouse=True)
def lexicon(monkeypatch):
    monkeypatch.setattr(sentiment, "_analyser", Lexicon)


@pytest.fixture(scope="module")
def book():
    return book_models.load(0)


# The frontier -------------------------------------------------------------------------------------


def test_the_tilt_is_the_exponential_family_and_its_kl_is_exact():
    gold = np.array([[0.0, 1.0, 1.0, 0.5], [0.2, 0.2, 0.9, 0.1]])
    found, kl = frontier.tilt(gold, 2.0)
    w = np.exp(2 * gold) / np.exp(2 * gold).sum(1, keepdims=True)
    assert found == pytest.approx((w * gold).sum(1).mean())
    assert kl == pytest.approx((w * np.log(4 * w)).sum(1).mean())
    assert frontier.tilt(gold, 0.0)[1] == pytest.approx(0.0, abs=1e-12)


def test_kl_is_the_tilts_and_what_was_paid_for_something_else():
    """Pythagoras, on two prompts with six responses each that are equally likely at the start."""
    rng = np.random.default_rng(0)
    gold = rng.normal(size=(2, 6))
    policy = rng.dirichlet(np.ones(6), size=2)
    strength, price = frontier.matching_tilt(gold, float((policy * gold).sum(1).mean()))
    tilted = strength * gold - logsumexp(strength * gold, axis=1, keepdims=True)
    waste = (policy * (np.log(policy) - tilted)).sum(1).mean()
    assert (policy * np.log(6 * policy)).sum(1).mean() == pytest.approx(price + waste)
    assert waste > 0


def test_no_tilt_reaches_more_than_the_best_sample():
    gold = np.array([[0.0, 1.0]])
    assert frontier.matching_tilt(gold, 1.1) is None
    assert frontier.matching_tilt(gold, 0.5) == pytest.approx((0.0, 0.0), abs=1e-5)


def test_the_kl_of_gold_is_nothing_for_the_same_samples_and_grows():
    rng = np.random.default_rng(1)
    start = rng.normal(size=4000)
    assert frontier.kl_of_gold(start, start) == pytest.approx(0.0)
    near, far = (frontier.kl_of_gold(rng.normal(m, size=4000), start) for m in (0.5, 1.5))
    assert near == pytest.approx(0.125, abs=0.03) and far > 3 * near


def evaluation(**changes):
    known = {
        "responses": [[[5, 6, 2], [5, 5]], [[6, 2], [7, 7, 7]]],
        "logps": [[[-1.0, -2.0, -1.0], [-1.0, -1.0]], [[-3.0, -1.0], [-1.0, -1.0, -1.0]]],
        "base": [[[-2.0, -2.0, -1.5], [-1.0, -2.0]], [[-3.0, -2.0], [-1.0, -2.0, -2.0]]],
        "ended": [[True, False], [True, False]],
        "gold": [[1.0, 0.0], [0.5, 0.5]],
    }
    return Evaluation(**known | changes)


def test_the_parts_of_a_kl_add_up_to_it():
    e = evaluation()
    assert e.log_ratios.tolist() == [[1.5, 1.0], [1.0, 2.0]]

    def classes(ids):
        return ["end" if i == 2 else "sentiment" if i == 6 else "other" for i in ids]

    parts = frontier.kl_by_class(e, classes)
    whole = e.log_ratios.mean()
    assert sum(parts[name] for name in ("end", "sentiment", "other")) == pytest.approx(whole)
    assert parts["end tokens"] == 0.5
    assert sum(frontier.kl_by_position(e, (0, 1, 2, 100))) == pytest.approx(whole)
    assert frontier.kl_by_position(e, (0, 1)) == [0.25]


def test_a_summary_says_what_a_policy_costs_and_what_the_tilt_would():
    gold = np.array([[0.0, 1.0, 0.2, 0.4], [0.1, 0.3, 0.9, 0.5]])
    found = frontier.summarise(evaluation(), gold)
    assert found["gold"] == 0.5 and found["kl"] == 1.375
    assert frontier.tilt(gold, found["tilt_strength"])[0] == pytest.approx(0.5)
    assert 0 < found["tilt_kl"] < found["kl"]
    assert found["tokens"] == 2.5 and found["ended"] == 0.5
    assert found["distinct_2"] == pytest.approx((1 + 1 + 1 + 0.5) / 4)


def test_a_small_step_pays_one_over_the_squared_correlation():
    """Exact KL and gain of pi_ref e^{s h} / Z against the tilt of the same gain, for small s."""
    rng = np.random.default_rng(4)
    gold = rng.normal(size=(3, 200))
    h = 0.6 * gold + 0.8 * rng.normal(size=gold.shape)
    found = frontier.direction(h, gold)
    w = np.exp(0.05 * h) / np.exp(0.05 * h).sum(1, keepdims=True)
    paid = (w * np.log(200 * w)).sum(1).mean()
    _, least = frontier.matching_tilt(gold, float((w * gold).sum(1).mean()))
    assert paid / least == pytest.approx(found["price_factor"], rel=0.1)
    assert found["correlation"] == pytest.approx(0.6, abs=0.05)
    aligned = frontier.direction(3 * gold + rng.normal(size=(3, 1)), gold)
    assert aligned["price_factor"] == pytest.approx(1) and aligned["gain_per_nat"] < 1
    assert frontier.direction(0 * gold, gold)["price_factor"] == math.inf


def test_best_of_n_under_gold_rises_and_its_price_is_the_bound():
    points = frontier.best_of_n_points(np.array([[0.0, 1.0], [0.0, 0.5]]), (1, 2))
    assert [p["gold"] for p in points] == [0.375, 0.75]
    assert points[1]["kl"] == pytest.approx(math.log(2) - 0.5)


def test_tokens_of_rated_words_are_told_from_others(book):
    _, tokenizer = book
    ids = [*tokenizer("a good bus", add_special_tokens=False).input_ids, end_id(tokenizer)]
    found = frontier.token_classes(
        ids, lambda part: decode(tokenizer, part), end_id(tokenizer), sentiment.is_sentiment_word
    )
    assert len(found) == len(ids) and found[-1] == "end" and found[0] == found[-2] == "other"
    rated = decode(tokenizer, [i for i, c in zip(ids, found, strict=True) if c == "sentiment"])
    assert rated.strip() == "good"


# The task -----------------------------------------------------------------------------------------


def test_topics_are_distinct_and_none_is_held_out_and_trained_on():
    both = [*sentiment.TOPICS, *sentiment.HELD_OUT]
    assert len(set(both)) == len(both) == 60


def test_labels_agree_with_gold_as_often_as_their_noise_says():
    rng, gap = np.random.default_rng(3), 0.4
    gold = np.array([gap, 0.0] * 10)
    agreed = [sentiment.wide_pairs(gold, rng)[1] for _ in range(400)]
    assert np.mean(agreed) == pytest.approx(1 / (1 + math.exp(-5 * gap)), abs=0.02)
    pairs, _ = sentiment.wide_pairs(np.arange(6.0), rng)
    assert sorted(map(tuple, np.sort(pairs).tolist())) == [(0, 3), (1, 4), (2, 5)]
    assert len(sentiment.all_pairs(np.arange(5.0), rng)[0]) == 10
    with pytest.raises(ShapeError, match="even n"):
        sentiment.wide_pairs(np.arange(3.0), rng)


def test_without_the_lexicon_the_message_says_what_to_install(monkeypatch):
    monkeypatch.undo()
    sentiment._analyser.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(MissingDependencyError, match="irlbook\\[sentiment\\]"):
        sentiment.gold(["x"], ["good"])


def test_the_real_lexicon_rates_words(monkeypatch):
    pytest.importorskip("vaderSentiment")
    monkeypatch.undo()
    sentiment._analyser.cache_clear()
    good, bad = sentiment.gold(["", ""], ["A wonderful, delicious meal.", "Terrible and dirty."])
    assert good > 0.7 and bad < -0.5
    assert sentiment.is_sentiment_word("Wonderful!") and not sentiment.is_sentiment_word("table")


# Policies -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool(book):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentiment, "_analyser", Lexicon)
        return policies.draw_pool(*book, TASK.prompts, TASK.train_samples, TASK, 0)


def test_a_pool_keeps_the_samplers_own_log_probabilities(book, pool):
    from irlbook.posttraining.rollouts import PolicyScorer

    model, _ = book
    own = score(PolicyScorer(model, TASK.temperature), pool.groups, 4, TASK.machine).numpy()
    assert np.abs(own - pool.sums).max() < 1e-3
    again = policies.Pool.from_json(json.loads(json.dumps(pool.to_json())))
    assert again.groups == [(list(x), ys) for x, ys in pool.groups]
    assert np.abs(again.sums - pool.sums).max() < 1e-4
    assert np.abs(pool.evaluation(4).log_ratios).max() == 0


def test_a_cut_response_teaches_no_end(book, pool):
    _, tokenizer = book
    groups, *_ = policies.offline_data(PolicyRun("dpo", 0.1), pool, 0)
    drawn = {tuple(y) for _, ys in pool.groups for y in ys}
    assert {tuple(y) for _, ys in groups for y in ys} <= drawn
    for (_, ys), ended in zip(pool.groups, pool.ended, strict=True):
        assert [y[-1] == end_id(tokenizer) for y in ys] == ended
    assert not all(e for own in pool.ended for e in own), "some must be cut for this to say much"


def test_the_reference_of_each_pair_is_that_of_its_responses(pool):
    groups, _, _, reference, right = policies.offline_data(PolicyRun("dpo", 0.1), pool, 0)
    sums = {tuple(y): s for (_, ys), own in zip(pool.groups, pool.sums, strict=True)
            for y, s in zip(ys, own, strict=True)}  # fmt: skip
    want = [[sums[tuple(y)] for y in ys] for _, ys in groups]
    assert np.abs(reference.numpy() - np.array(want)).max() < 1e-4
    assert 0 <= right <= 1
    noise = policies.offline_data(PolicyRun("noise", 0.1), pool, 0)
    assert len(noise[0]) == len(groups) and noise[3].shape == reference.shape


def batch_of(k, **extra):
    tree = collate([([1], [[2]] * k), ([1], [[2]] * k)])
    reference = torch.zeros(2, k)
    return Batch(tree, torch.arange(2), reference, extra)


def test_all_pairs_is_the_mean_of_dpo_on_each_pair():
    from irlbook.posttraining.dpo import dpo_loss

    wins = torch.zeros(2, 3, 3)
    for i, j in ((0, 1), (2, 0), (2, 1)):
        wins[:, i, j] = 1
    h = torch.tensor([0.3, -0.2, 1.0, 0.0, 0.5, -0.5])
    found = policies.group_objective(0.5).values(h, batch_of(3, wins=wins))
    for own, row in zip(found["loss"], h.view(2, 3), strict=True):
        pairs = torch.stack([row[[0, 1]], row[[2, 0]], row[[2, 1]]])
        assert float(own) == pytest.approx(float(dpo_loss(pairs, pairs * 0, 0.5).mean()))
    assert found["accuracy"].tolist() == [1.0, 0.0]


def test_the_tilts_likelihood_is_best_at_the_tilt():
    weights = torch.softmax(torch.tensor([[0.0, 1.0, 2.0]] * 2), 1)
    objective = policies.tilt_objective(1.0)
    logits = torch.zeros(2, 3, requires_grad=True)
    loss = objective.values(logits.log_softmax(1).flatten(), batch_of(3, weights=weights))["loss"]
    loss.sum().backward()
    assert torch.allclose(logits.grad, torch.full((2, 3), 1 / 3) - weights)


@pytest.mark.parametrize("kind", ["dpo", "all pairs", "tilt"])
def test_an_offline_run_moves_a_copy_towards_what_it_was_told(book, pool, kind):
    model, tokenizer = book
    before = {k: v.clone() for k, v in model.state_dict().items()}
    rate = 1e-4 if kind == "tilt" else 1e-3
    run = PolicyRun(kind, 0.1, learning_rate=rate, steps=6, batch=8 if kind == "dpo" else 4)
    policy, told = policies.train_offline(run, model, tokenizer, pool, TASK, 0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert told["history"]["loss"][-1] < told["history"]["loss"][0]
    found = policies.measure_policy(policy, model, tokenizer, TASK, 5)
    assert np.abs(found.log_ratios).max() > 0.01
    same = policies.log_ratios_on(model, pool, tokenizer, TASK)
    moved = policies.log_ratios_on(policy, pool, tokenizer, TASK)
    assert np.abs(same).max() < 1e-3 < np.abs(moved).max()


@pytest.mark.parametrize("kind", ["gold", "proxy"])
def test_a_policy_gradient_runs_on_gold_and_on_a_learned_reward(book, pool, kind):
    run = PolicyRun(kind, 0.05, learning_rate=1e-3, steps=2, batch=3)
    policy, told = policies.train_on_reward(run, *book, pool, TASK, 0)
    assert policy is not book[0]
    history = told["history"]
    assert len(history["gold"]) == 2 and 0 < history["distinct_2_words"][0] <= 1
    assert history["kl"][0] == pytest.approx(0, abs=1e-3) and history["grad_norm"][0] > 0
    assert ("correlation_with_gold" in told) == (kind == "proxy")


def test_embeddings_of_both_kinds_come_from_one_pass(book, pool):
    model, _ = book
    tree = collate(pool.groups[:2])
    both = embed(model, tree, "both")
    assert torch.equal(both, torch.cat([embed(model, tree), embed(model, tree, "mean")], 1))
    found = score(Embedder(model, "both"), pool.groups[:2], 4, TASK.machine)
    assert found.shape == (2, 4, both.shape[1])
    assert (found.flatten(0, 1) - both).abs().max() < 1e-4


# Real preferences ---------------------------------------------------------------------------------


def test_a_tail_keeps_the_end_of_the_response():
    assert human_preferences.tail([1, 2, 3], [4, 5], window=4) == ([2, 3], [[4, 5]])
    assert human_preferences.tail([1, 2, 3], [4, 5, 6, 7], window=3) == ([3], [[6, 7]])


def test_pairs_of_one_prompt_stay_on_one_side_of_a_split():
    asked = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5, 6])
    for mask in human_preferences.splits(asked, 5, 0):
        assert all(len(set(mask[asked == a])) == 1 for a in set(asked))
        assert mask.sum() <= 2


def test_the_shorter_wins_baseline_counts_ties_half():
    lengths = np.array([[3, 5], [5, 3], [4, 4], [1, 9]])
    assert human_preferences.length_baseline(lengths) == 0.625
    assert human_preferences.near_equal(lengths).tolist() == [False, False, True, False]


def test_a_strong_penalty_is_that_of_c_for_a_sum_of_losses():
    assert human_preferences.strength(1e-4, 400) == pytest.approx(25.0)


@pytest.mark.parametrize("loss", ["bt", "classification"])
def test_a_head_finds_what_the_pairs_prefer(loss):
    rng = np.random.default_rng(0)
    phi = torch.tensor(rng.normal(size=(200, 2, 4)))
    better = phi[:, :, 0].argmax(1)
    phi = torch.stack([phi[torch.arange(200), better], phi[torch.arange(200), 1 - better]], 1)
    rewards = human_preferences.fit_and_judge(phi[:150], phi[150:], loss, c=1e-2)
    assert human_preferences.measures(rewards)["accuracy"] > 0.9


def test_real_preferences_are_judged_without_a_word_of_them(book, tmp_path):
    model, tokenizer = book
    records = [
        Preference(f"Write about {n}.", f"A {'very ' * (n % 3)}nice bus {n}.", "No.")
        for n in range(30)
    ]
    pairs = human_preferences.read_pairs(tokenizer, {"made up": records}, window=24)
    found = human_preferences.embed_pairs(model, pairs, TASK.machine, 0, tmp_path)
    again = human_preferences.embed_pairs(None, pairs, TASK.machine, 0, tmp_path)  # from the cache
    assert torch.equal(found, again) and len(list(tmp_path.glob("*.safetensors"))) == 1
    result = human_preferences.judge(found, pairs.lengths, pairs.asked, count=3)
    assert set(result["heads"]) == {
        f"{loss}, {x}" for loss in ("bt", "classification") for x in ("last", "mean", "both")
    }
    assert np.mean(result["heads"]["bt, mean"]["accuracy"]) == 1.0
    assert result["shorter"] == [0.0] * 3 and len(result["curve"]) == 0
    assert "bus" not in json.dumps(result)


def test_a_reward_model_is_fine_tuned_on_pairs(tmp_path):
    folder = book_models.folder(0)
    _, tokenizer = book_models.load(0)
    records = [Preference(f"Say {n}.", "Yes indeed.", "No, no, no.") for n in range(12)]
    pairs = human_preferences.read_pairs(tokenizer, {"made up": records}, window=24)
    mask = np.arange(12) < 4
    from irlbook.training.config import TrainingConfig

    config = TrainingConfig(
        **asdict(TASK.machine) | {"learning_rate": 3e-3}, epochs=4, batch_size=4
    )
    found = human_preferences.fine_tuned(folder, pairs, mask, config, None)
    assert found["accuracy"] == 1.0 and len(found["loss_by_step"]) == 8
    assert found["judged"] == 4 and found["order"] == [1, 1, 1, 1]


# Silent bugs --------------------------------------------------------------------------------------


def test_each_wrong_prompt_has_another_likelihood(book):
    found = silent_bugs.prompt_bugs(*book)
    assert set(found) == {"right", "no template", "begins twice", "no generation prompt"}
    right = np.array(found.pop("right"))
    assert all(np.abs(np.array(wrong) - right).max() > 0.01 for wrong in found.values())
    ends = silent_bugs.boundary_bugs(*book)
    assert np.allclose(ends["right"], right, atol=1e-3)
    assert (np.array(ends["end left out"]) > np.array(ends["right"])).all()


def test_a_mask_of_pads_takes_the_end_only_where_pad_is_the_end(book):
    model, tokenizer = book
    fine = silent_bugs.end_token_bug(model, tokenizer)
    assert fine["ends_in_the_loss"] == fine["ends"] == len(silent_bugs.EXCHANGES)
    other = book_models.load(0)[1]
    other.pad_token = other.eos_token
    found = silent_bugs.end_token_bug(model, other)
    assert found["ends_in_the_loss"] == 0 and found["by_id"] > found["by_length"]
    assert silent_bugs.tokenizer_facts(other)["pad_is_eos"]


def test_a_scorer_at_another_temperature_is_off_and_at_the_samplers_is_not(book):
    found = silent_bugs.temperature_bug(*book, ["Write a review of the bus."], 0.5, n=8)
    assert found["same"] < 1e-3 and found["at_one"] < -0.05
    right = silent_bugs.temperature_bug(*book, ["Write a review of the bus."], 1.0, n=8)
    assert abs(right["ratio_bug"]) < 1e-2


def test_rounding_and_a_cut_at_fifty_are_measured(book):
    found = silent_bugs.log_softmax_in_bfloat16(*book)
    assert found["all"] > 0 and found["logits"] > 0
    cut = silent_bugs.generate_default(*book, ["Write a review of the bus."])
    assert 0 <= cut["outside"] <= cut["most"] < 1


# The jobs -----------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(
        study, "RUNS", {"dpo 1": PolicyRun("dpo", 1.0, learning_rate=1e-3, steps=2, batch=2)}
    )
    return study.RealModelStudy(book_models.folder(0), tmp_path / "parts", TASK)


def test_the_study_goes_on_where_it_was_killed(small, tmp_path, monkeypatch):
    made = []
    draw = study.draw_pool
    monkeypatch.setattr(study, "draw_pool", lambda *a: made.append(a[2][0]) or draw(*a))

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study, "measure_policy", killed)
        with pytest.raises(KeyboardInterrupt):
            small.run("policies")
    assert len(made) == 2 and list(small.work.glob("*.run"))  # two pools, and the checkpoints
    raw = small.write(tmp_path / "out.json")
    assert "dpo 1, seed 0" in raw["card"]["missing"] and "rewards" in raw["card"]["missing"]
    small.run("policies")
    assert len(made) == 2 and not list(small.work.glob("*.run"))
    raw = small.write(tmp_path / "out.json")
    assert raw == json.loads((tmp_path / "out.json").read_text())
    found = raw["policies"]["runs"]["dpo 1"]["seeds"]["0"]
    assert found["target_strength"] == 5.0 and found["kl"] == pytest.approx(
        sum(found["kl_by_class"][c] for c in ("other", "end") if c in found["kl_by_class"]),
        abs=0.01,
    )
    assert raw["policies"]["start"]["kl"] == 0
    assert len(raw["policies"]["tilt"]) == len(study.STRENGTHS)


def test_the_study_goes_on_on_another_machine(small, tmp_path, monkeypatch):
    """The folder of jobs is gone; the file of results says what need not be measured again."""
    small.run("policies")
    small.bugs()
    first = small.write(tmp_path / "out.json")
    trained = []
    monkeypatch.setattr(study, "train_offline", lambda *a: trained.append(a[5]))
    there = study.RealModelStudy(small.folder, tmp_path / "new", TASK, seeds=[0], earlier=first)
    there.run("policies")
    again = there.write(tmp_path / "again.json")
    assert not trained
    assert again["policies"] == first["policies"] and again["bugs"] == first["bugs"]
    assert again["card"]["jobs"] == first["card"]["jobs"]
    more = study.RealModelStudy(small.folder, tmp_path / "new", TASK, seeds=[1], earlier=first)
    assert more.judges.digest == small.judges.digest
    raw = more.collect()
    assert raw["card"]["seeds"] == [0, 1] and "dpo 1, seed 1" in raw["card"]["missing"]
    assert raw["policies"]["runs"] == first["policies"]["runs"]
    other = replace(TASK, temperature=1.0)
    nothing = study.RealModelStudy(small.folder, tmp_path / "new", other, earlier=first).collect()
    assert "bugs" not in nothing and "policies" not in nothing


def test_a_job_that_cannot_be_read_is_named(small):
    path = small.path("bugs", {"machine": small.machine})
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(CheckpointError, match="Remove it to run the job again"):
        small.bugs()


def test_other_settings_are_other_jobs(small):
    other = replace(small.task, temperature=1.0)
    assert small.path("a", {"task": small.task.settings()}) != small.path(
        "a", {"task": other.settings()}
    )


def test_a_folder_without_weights_and_a_part_without_data_are_named(small, tmp_path):
    with pytest.raises(DataNotFoundError, match="holds no"):
        study.weights_digest(tmp_path)
    with pytest.raises(DataNotFoundError, match="--data FOLDER"):
        small.run("rewards")
    with pytest.raises(DataNotFoundError, match="make it again"):
        study.load(tmp_path / "none.json")


def test_the_check_measures_anew_and_hears_a_change(small, tmp_path, capsys):
    out, work = tmp_path / "out.json", tmp_path / "parts"
    small.bugs()
    small.write(out)
    command = ["--model", str(book_models.folder(0)), "--out", str(out), "--work", str(work)]
    assert study.main([*command, "--check"]) == 0
    raw = json.loads(out.read_text())
    raw["bugs"]["prompt"]["right"][0] += 0.5
    out.write_text(json.dumps(raw))
    assert study.main([*command, "--check"]) == 1
    assert "0.5 nats" in capsys.readouterr().out
    raw["card"]["weights_sha256"] = "others"
    out.write_text(json.dumps(raw))
    assert study.main([*command, "--check"]) == 2


def test_precision_reaches_what_is_measured_and_learned(small, tmp_path):
    half = study.RealModelStudy(
        small.folder, tmp_path / "half", replace(TASK, precision="bfloat16")
    )
    exact, rounded = (np.array(s.bugs()["result"]["prompt"]["right"]) for s in (small, half))
    assert 1e-4 < abs(exact - rounded).max() < 1
    assert half.log_probabilities()["prompt"]["right"] == rounded.tolist()
    model, tokenizer = half.loaded
    pool = half.training_pool(0)
    proxy, _ = policies.fit_proxy(model, tokenizer, pool, half.task, seed=0)
    assert {p.dtype for p in proxy.members[0].head.parameters()} == {torch.float32}


def test_no_job_is_begun_once_the_time_is_over(small, tmp_path, capsys):
    out, work = tmp_path / "out.json", tmp_path / "parts"
    command = ["--model", str(book_models.folder(0)), "--out", str(out), "--work", str(work)]
    assert study.main([*command, "--minutes", "0"]) == 0
    assert {"bugs", "policies", "rewards"} <= set(study.load(out)["card"]["missing"])
    assert "without --data" in capsys.readouterr().err and not work.exists()


def test_what_ships_says_what_was_measured_and_what_is_missing():
    raw = study.load()
    assert len(raw["card"]["weights_sha256"]) == 64 and raw["card"]["import"]["lost"]
    runs, seeds = raw["policies"]["runs"], raw["card"]["seeds"]
    measured = {f"{name}, seed {seed}" for name in runs for seed in runs[name]["seeds"]}
    missing = {name for name in raw["card"]["missing"] if ", seed " in name}
    assert not measured & missing
    assert measured | missing == {f"{name}, seed {k}" for name in policies.RUNS for k in seeds}
    assert all(runs[name]["settings"] == asdict(policies.RUNS[name]) for name in runs)
    assert raw["card"]["cpu_seconds"] == pytest.approx(sum(raw["card"]["jobs"].values()), abs=1)
    assert raw["bugs"]["tokenizer"]["pad_is_eos"]
    assert raw["bugs"]["end_token"]["ends_in_the_loss"] == 0
    gold, kl = (np.array([point[k] for point in raw["policies"]["tilt"]]) for k in ("gold", "kl"))
    assert (np.diff(gold) > 0).all() and (np.diff(kl) > 0).all()


def killed():
    raise KeyboardInterrupt


def without_weights():
    study.weights_digest(study.STORED.parent)


def on_a_full_disk():
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("main", "code", "told"),
    [
        (killed, 130, "run the same command again"),
        (without_weights, 1, "holds no *.safetensors"),
        (on_a_full_disk, 1, "No space left on device"),
    ],
)
def test_what_stops_the_command_is_told_in_one_line(main, code, told, capsys):
    assert as_command(main) == code
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1
