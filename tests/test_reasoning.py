"""Chapter 19's library: its world, its estimators, its labels, the bandit, and data by path."""

import itertools
import math
import zlib
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from irlbook import data, errors
from irlbook.data.records import ReasoningTrace
from irlbook.lm.trees import collate
from irlbook.posttraining import (
    many_samples,
    mistake_finding,
    process_rewards,
    prompt_choice,
    real_reasoning,
    reasoning_study,
    spurious,
)
from irlbook.posttraining.policy_gradient import clipped_surrogate, grpo_advantage
from irlbook.tasks import arithmetic, remainders
from irlbook.tasks.arithmetic import Operation, Problem
from irlbook.training import Batch

SAM = Problem("Sam has $15. Buys $8. Sells $4.", 15, (Operation("+", 8), Operation("-", 4)), 5)
SEEDS = st.integers(0, 2**32 - 1)


def real(name):
    try:
        return data.find_data(name)
    except errors.DataNotFoundError:
        pytest.skip(f"the data {name} are not on this machine (IRLBOOK_DATA)")


# --- the world ------------------------------------------------------------------------------------


def test_the_worked_example():
    assert SAM.answer == 4
    assert remainders.solve(SAM) == "15+8=23;23-4=19;Answer:4"
    assert remainders.columnwise(SAM) == "15+8=13;13-4=19;Answer:4"
    assert remainders.direct(SAM) == "Answer:4"
    assert arithmetic.check(SAM, remainders.solve(SAM)).sound
    lucky = arithmetic.check(SAM, remainders.columnwise(SAM))
    assert lucky.lucky and lucky.first_wrong == 0


@given(SEEDS, st.integers(1, 4))
def test_problems_and_writers_keep_their_word(seed, steps):
    rng = np.random.default_rng(seed)
    (problem,) = remainders.generate(1, rng, steps=(steps, steps))
    assert len(problem.operations) == steps and 0 <= problem.answer < 5
    assert all(1 <= value <= 24 for value in problem.values)
    checked = {w: arithmetic.check(problem, f(problem, rng)) for w, f in remainders.WRITERS.items()}
    assert checked["careful"].sound
    assert checked["columnwise"].answer_right and checked["direct"].lucky
    assert not checked["misread"].sound and not checked["skipped"].sound
    values = problem.values[:-1]
    slips = [
        remainders.column_result(v, o) != o(v)
        for v, o in zip(values, problem.operations, strict=True)
    ]
    assert checked["columnwise"].sound != any(slips)
    assert "".join(remainders.steps_of(remainders.solve(problem))) == remainders.solve(problem)


def test_an_error_of_ten_shows_in_other_remainders():
    (problem,) = remainders.generate(1, np.random.default_rng(0), modulus=7)
    with pytest.raises(errors.InvalidHyperparameterError, match="modulus of 2, 5 or 10"):
        remainders.columnwise(problem)


@pytest.mark.parametrize("setting", [{"steps": (0, 1)}, {"steps": (3, 2)}, {"modulus": 1}])
def test_settings_are_checked(setting):
    with pytest.raises(errors.InvalidHyperparameterError):
        remainders.generate(1, np.random.default_rng(0), **setting)


def test_the_mix_is_checked():
    with pytest.raises(errors.InvalidHyperparameterError, match="sum to 1"):
        remainders.demonstrations([SAM], np.random.default_rng(0), {"careful": 0.5})


# --- many samples ---------------------------------------------------------------------------------


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_mean_over_all_subsets(n, drawn):
    k = drawn.draw(st.integers(1, n))
    c = drawn.draw(st.integers(0, n))
    samples = [1] * c + [0] * (n - c)
    by_hand = np.mean([max(s) for s in itertools.combinations(samples, k)])
    assert many_samples.pass_at_k([c], n, k)[0] == pytest.approx(by_hand, abs=1e-12)


def test_pass_at_k_is_unbiased_and_the_plain_formula_is_not():
    n, k, q = 10, 5, 0.2
    chance = np.array([math.comb(n, c) * q**c * (1 - q) ** (n - c) for c in range(n + 1)])
    counts = np.arange(n + 1)
    assert chance @ many_samples.pass_at_k(counts, n, k) == pytest.approx(1 - 0.8**k, abs=1e-12)
    plugged = chance @ (1 - (1 - counts / n) ** k)
    assert plugged < 1 - 0.8**k - 0.05


def test_pass_at_k_is_checked():
    with pytest.raises(errors.InvalidHyperparameterError, match="between 1 and 4"):
        many_samples.pass_at_k([1], 4, 5)
    with pytest.raises(errors.ShapeError):
        many_samples.pass_at_k([5], 4, 1)


def test_the_majority_over_subsets():
    rng = np.random.default_rng(0)
    votes = np.array([[3, 2, 0], [0, 4, 1], [2, 2, 0], [0, 0, 0]])
    np.testing.assert_allclose(many_samples.majority_at_k(votes, 5, rng), [1, 0, 0.5, 0])
    one = many_samples.majority_at_k(votes, 1, rng, draws=20_000)
    np.testing.assert_allclose(one, [0.6, 0, 0.5, 0], atol=0.02)
    samples = [0, 0, 0, 1, 1]
    by_hand = np.mean([sum(s) <= 1 for s in itertools.combinations(samples, 3)])
    assert many_samples.majority_at_k(votes[:1], 3, rng, 20_000)[0] == pytest.approx(
        by_hand, abs=0.02
    )
    with pytest.raises(errors.ShapeError):
        many_samples.majority_at_k([1, 2], 3, rng)


def test_weighted_votes():
    votes = many_samples.weighted_votes([[0, 1, 1, -1]], [[0.9, 0.2, 0.3, 5.0]], 2)
    np.testing.assert_allclose(votes, [[0.9, 0.5]])
    with pytest.raises(errors.ShapeError):
        many_samples.weighted_votes([[2]], [[1.0]], 2)


# --- process rewards ------------------------------------------------------------------------------


def test_a_prefix_does_not_recover():
    assert process_rewards.prefix_labels([True, False, True]).tolist() == [True, False, False]


def test_rollout_labels():
    assert process_rewards.rollout_label([1, 0, 0, 1]) == 0.5
    assert process_rewards.rollout_label([0, 1], hard=True) == 1.0
    with pytest.raises(errors.ShapeError):
        process_rewards.rollout_label([])


def test_solution_scores():
    p = [0.9, 0.5, 0.8]
    assert process_rewards.solution_score(p) == pytest.approx(0.36)
    assert process_rewards.solution_score(p, "minimum") == 0.5
    assert process_rewards.solution_score(p, "last") == 0.8
    assert process_rewards.first_below(p, 0.6) == 1 and process_rewards.first_below(p) is None
    with pytest.raises(errors.InvalidHyperparameterError):
        process_rewards.solution_score(p, "mean")
    with pytest.raises(errors.ShapeError):
        process_rewards.solution_score([])


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=12))
def test_the_area_is_the_chance_of_a_right_order(pairs):
    scores, labels = map(np.array, zip(*pairs, strict=True))
    found = process_rewards.area_under_curve(scores, labels)
    if labels.all() or not labels.any():
        assert math.isnan(found)
        return
    gaps = scores[labels][:, None] - scores[~labels]
    assert found == pytest.approx(((np.sign(gaps) + 1) / 2).mean(), abs=1e-12)


# --- spurious rewards -----------------------------------------------------------------------------


def test_inner_steps_follow_the_library_s_clipped_surrogate():
    """Autograd through `clipped_surrogate` with `grpo_advantage`, an arm and coin at a time."""
    rng = np.random.default_rng(0)
    for clip in ((0.2, 0.2), (0.1, 0.3)):
        start = rng.normal(size=3)
        arms, coins = rng.integers(3, size=6), np.array([1.0, 0, 1, 1, 0, 0])
        counts = [np.bincount(arms[coins == c], minlength=3)[None] for c in (1, 0)]
        advantage = grpo_advantage(torch.tensor(coins)[None])[0]
        old = torch.log_softmax(torch.tensor(start), 0)[arms]
        logits = torch.tensor(start, requires_grad=True)
        for _ in range(4):
            new = torch.log_softmax(logits, 0)[arms]
            loss = clipped_surrogate(new, old, advantage, *clip).mean()
            (slope,) = torch.autograd.grad(loss, logits)
            logits = (logits - 2.0 * slope).detach().requires_grad_()
        found = spurious.inner_steps(start[None], *counts, steps=4, rate=2.0, clip=clip)[0]
        np.testing.assert_allclose(found, logits.detach().numpy(), atol=1e-12)


def test_all_groups_are_all_and_the_expectation_is_that_of_draws():
    p = np.array([0.6, 0.3, 0.1])
    paid, unpaid, weight = spurious.all_groups(p, 5)
    assert weight.sum() == pytest.approx(1, abs=1e-12) and ((paid + unpaid).sum(1) == 5).all()
    np.testing.assert_allclose(weight @ (paid + unpaid), 5 * p, atol=1e-12)
    options = {"steps": 3, "rate": 1.0}
    _, exact = spurious.expected_update(p, 5, **options)
    rng = np.random.default_rng(0)
    drawn = spurious.simulate(p, 5, rng, runs=200_000, iterations=1, **options)[1]
    error = drawn.std(axis=0) / math.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - p - exact) < 4 * error).all()


def test_one_step_on_a_coin_has_no_gradient_and_more_steps_have():
    p = [0.6, 0.3, 0.1]
    logits, _ = spurious.expected_update(p, 6, steps=1, rate=1.0)
    assert np.abs(logits).max() < 1e-12
    free, _ = spurious.expected_update(p, 6, steps=4, rate=1.0, clip=spurious.NO_CLIP)
    clipped, _ = spurious.expected_update(p, 6, steps=4, rate=1.0)
    assert free[0] < -0.02 and clipped[0] > free[0] + 0.02


def test_the_bandit_refuses_bad_input():
    with pytest.raises(errors.NotStochasticError):
        spurious.expected_update([0.5, 0.6], 4, steps=1, rate=1.0)
    with pytest.raises(errors.InvalidHyperparameterError):
        spurious.expected_update([0.5, 0.5], 1, steps=1, rate=1.0)
    with pytest.raises(errors.InvalidHyperparameterError):
        spurious.expected_update([0.5, 0.5], 4, steps=0, rate=1.0)


# --- prompts and chains ---------------------------------------------------------------------------


def test_the_prompt_reward_finds_an_interaction_and_refuses_none():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3_000, 2))
    right = rng.random((3_000, 2)) < 1 / (1 + np.exp(-np.stack([2 * x[:, 0], -2 * x[:, 0]], 1)))
    model = prompt_choice.fit_prompt_reward(x[:2_000], right[:2_000], l2=1e-3)
    choice = prompt_choice.choose_prompts(model.chances(x[2_000:]), right[2_000:], 0)
    assert choice.on_average < 0.55 < 0.7 < choice.by_question < choice.any_prompt
    with pytest.raises(errors.ShapeError):
        prompt_choice.fit_prompt_reward(x, right[:5])
    with pytest.raises(errors.ShapeError):
        prompt_choice.choose_prompts(right, right, 2)


def test_no_interaction_has_headroom_all_the_same():
    rng = np.random.default_rng(0)
    ease, strength = rng.normal(0, 1.5, size=(20_000, 1)), np.array([0.5, 0.0, -0.5])
    right = rng.random((20_000, 3)) < 1 / (1 + np.exp(-ease - strength))
    model = prompt_choice.fit_no_interaction(right)
    np.testing.assert_allclose(model.strength, strength, atol=0.06)
    assert model.any_prompt == pytest.approx(right.any(axis=1).mean(), abs=0.01)
    assert model.any_prompt > model.best_prompt + 0.15
    with pytest.raises(errors.UninformativeDataError):
        prompt_choice.fit_no_interaction(np.ones((4, 2)))


def test_question_features_count_words_and_numbers():
    one, same, other = prompt_choice.question_features(["Sam has 3.", "Sam has 17.", "Tom runs"])
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(-9 - 5) * 2", -28.0),
        ("A - 3", 4.0),
        ("__import__('os')", None),
        ("2 ** 9", None),
        ("(1", None),
        ("B", None),
    ],
)
def test_arithmetic_values(text, value):
    assert mistake_finding.arithmetic_value(text, {"A": 7.0}) == value


def trace(*steps, question="", mistake=None):
    return ReasoningTrace(question, steps, None, "", mistake)


def test_equations_are_checked_in_order():
    right = ("Let's calculate A = (2 + 3) = 5.", "Then A * 2 = 5 * 2 = 10. So the answer is 10")
    assert mistake_finding.equation_mistake(trace(*right)) is None
    assert mistake_finding.equation_mistake(trace("A = (2 + 3) = 6.", *right[1:])) == 0
    assert mistake_finding.equation_mistake(trace(right[0], "Then A * 2 = 6 * 2 = 12.")) == 1


def test_stacks_are_checked_from_the_truth():
    question = "Complete the rest. Input: ( [ ]"
    steps = ["stack: empty", "( ; stack: (", "[ ; stack: ( [", "] ; stack: ("]
    closing = ['The final stack is "(".', 'We will need to pop out "(" one by one.']
    assert mistake_finding.stack_mistake(trace(*steps, *closing, question=question)) is None
    for at, bad in ((2, "[ ; stack: [ ("), (3, "] ; stack: ( ["), (4, 'The final stack is "[".')):
        told = [*steps, *closing]
        told[at] = bad
        assert mistake_finding.stack_mistake(trace(*told, question=question)) == at
    assert mistake_finding.stack_mistake(trace(steps[0], steps[2], question=question)) == 1


def test_the_step_classifier_learns_a_word():
    chains = [
        trace("fine", "oops" if i % 2 else "fine", "end", mistake=1 if i % 2 else None)
        for i in range(60)
    ]
    model = mistake_finding.fit_step_classifier(chains[:40], l2=1e-3)
    assert mistake_finding.found_exactly(chains[40:], model.first_mistake).all()
    with pytest.raises(errors.UninformativeDataError):
        mistake_finding.fit_step_classifier([trace("fine")])


def test_question_features_by_hand():
    def place(word, buckets=1024):
        return zlib.crc32(word.encode()) % buckets

    (row,) = prompt_choice.question_features(["Sam has 3. Sam has 4.5."])
    words = ["sam", "has", "<n>", "sam", "has", "<n>"]
    counts = Counter(place(w) for w in [*words, *map("_".join, itertools.pairwise(words))])
    assert row.shape == (1027,) and set(np.flatnonzero(row[:1024])) == set(counts)
    for k, n in counts.items():
        assert row[k] == pytest.approx(math.log1p(n))
    assert row[1024:].tolist() == pytest.approx([math.log(6), 2, 3])  # words, numbers, full stops
    (few,) = prompt_choice.question_features(["$ 5 %"], buckets=2)
    assert few[2:].tolist() == pytest.approx([math.log(3), 1, 0])
    assert not prompt_choice.question_features([""])[0].any()


def test_a_table_without_interaction_has_the_likelihood_that_it_says():
    rng = np.random.default_rng(1)
    right = rng.random((60, 3)) < 1 / (1 + np.exp(-rng.normal(size=(60, 1)) - [0.8, 0.0, -0.5]))
    model = prompt_choice.fit_no_interaction(right, grid=9)
    assert model.ease.shape == (9,) and np.ptp(model.ease) == pytest.approx(16)
    assert model.strength.sum() == pytest.approx(0, abs=1e-9)
    assert model.share.sum() == pytest.approx(1)
    p = 1 / (1 + np.exp(-model.ease[:, None] - model.strength))
    np.testing.assert_allclose(model.chances, p)
    like = np.array([model.share @ np.where(y, p, 1 - p).prod(axis=1) for y in right])
    assert model.log_likelihood == pytest.approx(np.log(like).mean(), abs=1e-6)
    assert model.best_prompt == pytest.approx((model.share @ p).max())
    assert model.any_prompt == pytest.approx(model.share @ (1 - (1 - p).prod(axis=1)))
    np.testing.assert_allclose(model.share @ p, right.mean(axis=0), atol=1e-4)  # as at any maximum
    assert len(prompt_choice.fit_no_interaction(right).share) == 31
    for bad in (right[0], right[:0]):
        with pytest.raises(errors.ShapeError, match="questions, prompts"):
            prompt_choice.fit_no_interaction(bad)
    for constant in (0, 1):  # never right, always right
        table = right.copy()
        table[:, 1] = constant
        with pytest.raises(errors.UninformativeDataError, match="no finite strength"):
            prompt_choice.fit_no_interaction(table)


def test_a_score_of_0_is_no_yes_and_half_a_label_is_no_yes():
    goal = process_rewards.label_objective()
    tree = collate([([1], [[2]])] * 3)
    batch = Batch(tree, torch.arange(3), None, {"label": torch.tensor([0.5, 1.0, 0.6])})
    found = goal.values(torch.tensor([0.0, 0.0, 1.0]), batch)
    assert found["accuracy"].tolist() == [1.0, 0.0, 1.0] and goal.name == "label"
    with pytest.raises(errors.ShapeError, match="one axis"):
        process_rewards.area_under_curve([1.0, 2.0], [1])
    with pytest.raises(errors.ShapeError, match="one a piece"):
        process_rewards.solution_score([[0.5]])


def test_the_clip_if_none_is_given_is_a_fifth_on_both_sides():
    p, options = [0.6, 0.3, 0.1], {"steps": 4, "rate": 1.0}
    usual = spurious.expected_update(p, 4, **options)
    np.testing.assert_array_equal(usual, spurious.expected_update(p, 4, **options, clip=(0.2, 0.2)))
    for other in ((0.1, 0.2), (0.2, 0.1)):
        assert np.abs(usual[0] - spurious.expected_update(p, 4, **options, clip=other)[0]).max() > 0
    runs = [
        spurious.simulate(p, 4, np.random.default_rng(0), runs=50, iterations=2, **options, **more)
        for more in ({}, {"clip": (0.2, 0.2)})
    ]
    np.testing.assert_array_equal(*runs)
    counts = np.array([[2, 0, 1]]), np.array([[0, 3, 0]])
    start = np.log([p])
    np.testing.assert_array_equal(
        spurious.inner_steps(start, *counts, **options),
        spurious.inner_steps(start, *counts, **options, clip=(0.2, 0.2)),
    )


def test_two_verifiers_are_counted_by_label_and_by_what_they_say(monkeypatch, tmp_path):
    """Marked and unmarked answers to two questions, by two models and six prompts."""
    made = [
        SimpleNamespace(solution="5 #### 5", answer="5", correct=True, model="6b"),
        SimpleNamespace(solution="4 #### 4", answer="5", correct=False, model="6b"),
        SimpleNamespace(solution="5 #### 5", answer="5", correct=False, model="175b"),
        SimpleNamespace(solution="7 #### 7", answer="7", correct=True, model="175b"),
    ]
    asked = [SimpleNamespace(solution="#### 5"), SimpleNamespace(solution="#### 7")]
    rows = [(0, "so #### 5"), (1, "so 7"), (1, "#### 9"), (0, "nothing")]
    monkeypatch.setattr(real_reasoning, "read_gsm8k_solutions", lambda folder: made)
    monkeypatch.setattr(real_reasoning, "read_gsm8k", lambda folder: asked)
    monkeypatch.setattr(real_reasoning, "read_prompt_answers", lambda prompt, folder: rows)
    (tmp_path / "prompt_oirl_llama2").mkdir()
    for prompt in real_reasoning.PROMPTS:
        np.save(tmp_path / "prompt_oirl_llama2" / f"gsm8k_test_{prompt}.npy", np.array([1, 0]))
    found = real_reasoning.verifiers(tmp_path)
    assert (found["solutions"], found["agree"], found["each"]) == (4, 3, 2)
    assert found["right"] == {"6b": 1, "175b": 1}
    assert set(found["llama"]) == set(real_reasoning.PROMPTS)
    for counts in found["llama"].values():  # [label][verifier]: labels are 1 0 0 1
        assert counts["marked"] == [[2, 0], [1, 1]]
        assert counts["last number"] == [[1, 1], [1, 1]]


def test_prompts_are_chosen_on_questions_that_were_not_learned_from(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    words = np.array(["apples", "trains"])
    kind = rng.integers(2, size=200)
    likes = kind[:, None] == np.array([0, 1, 0, 1, 0, 1])
    chance = np.where(likes, 0.9, 0.2) + np.array([0.05, 0, 0, 0, 0, 0])
    tables = {
        (task, split): rng.random((n, 6)) < chance[:n]
        for task in ("gsm8k", "svamp", "mawps")
        for split, n in (("train", 200), ("test", 40))
    }
    questions = [SimpleNamespace(question=f"How many {words[k]}?") for k in kind]
    monkeypatch.setattr(real_reasoning, "read_gsm8k", lambda folder, split="test": questions[:])
    monkeypatch.setattr(
        real_reasoning,
        "read_prompt_results",
        lambda folder, task, split: SimpleNamespace(right=tables[task, split]),
    )
    found = real_reasoning.prompts(tmp_path, splits=2)
    assert len(found["splits"]) == 2 and found["held_out"] == 0.25
    x = prompt_choice.question_features([q.question for q in questions])
    y = tables["gsm8k", "train"]
    for split, row in enumerate(found["splits"]):
        order = np.random.default_rng(split).permutation(200)
        held, own = order[:50], order[50:]
        chances = prompt_choice.fit_prompt_reward(x[own], y[own]).chances(x[held])
        best = int(y[own].mean(axis=0).argmax())
        taken = y[held][np.arange(50), chances.argmax(axis=1)]
        assert row["best"] == best
        assert row["by_question"] == pytest.approx(taken.mean(), abs=6e-5)
        assert row["on_average"] == pytest.approx(y[held][:, best].mean(), abs=6e-5)
        assert row["any_prompt"] == pytest.approx(y[held].any(axis=1).mean(), abs=6e-5)
        for name, c, t in (
            ("auc", chances.ravel(), y[held].ravel()),
            ("auc_one_prompt", chances[:, best], y[held][:, best]),
        ):
            above = np.sign(c[t][:, None] - c[~t])
            assert row[name] == pytest.approx((above.mean() + 1) / 2, abs=6e-5)
    taken = prompt_choice.fit_prompt_reward(x, y).chances(x[:40]).argmax(axis=1)
    right = tables["gsm8k", "test"][np.arange(40), taken].mean()
    assert found["test"]["by_question"] == pytest.approx(right, abs=6e-5)
    for (task, split), table in tables.items():
        counted = found["sets"][f"{task} {split}"]
        assert counted["n"] == len(table) and counted["any"] == table.any(axis=1).sum()
        assert counted["right"] == table.sum(axis=0).tolist()
    for task in ("gsm8k", "svamp", "mawps"):
        told = found["no_interaction"][f"{task} train"]
        model = prompt_choice.fit_no_interaction(tables[task, "train"])
        assert told["any_prompt"] == pytest.approx(model.any_prompt, abs=6e-5)
        assert told["best_prompt"] == pytest.approx(model.best_prompt, abs=6e-5)
        assert told["patterns"]["variation"] > 2 * told["patterns"]["by_chance"]  # it interacts


def test_the_counts_that_ship_are_read_and_say_how_they_are_made(monkeypatch, tmp_path):
    assert set(real_reasoning.stored()) == {"verifiers", "prompts", "mistakes"}
    monkeypatch.setattr(real_reasoning, "STORED", tmp_path / "none.json")
    with pytest.raises(errors.DataNotFoundError, match="real_reasoning DATA OUT.json"):
        real_reasoning.stored()


def test_patterns_of_a_table_and_of_a_model():
    chances = np.random.default_rng(0).random((2, 6))
    found = real_reasoning._chances_of_patterns(chances)
    assert found.shape == (2, 64) and found.sum(axis=1) == pytest.approx([1, 1])
    for code in (0, 1, 32, 37, 63):
        bits = np.array([code >> p & 1 for p in range(6)])
        np.testing.assert_allclose(
            found[:, code], np.where(bits, chances, 1 - chances).prod(axis=1)
        )
    rng = np.random.default_rng(1)
    table = rng.random((4000, 6)) < chances[0]
    same = real_reasoning._patterns(table, found[0])
    assert same["variation"] == pytest.approx(same["by_chance"], rel=0.4)
    seen = np.bincount(table @ (1 << np.arange(6)), minlength=64) / 4000
    other = real_reasoning._patterns(table, found[1])
    assert other["variation"] == pytest.approx(np.abs(seen - found[1]).sum() / 2, abs=6e-5)
    sure = real_reasoning._patterns(np.ones((3, 6), bool), np.eye(64)[63])
    assert sure == {"variation": 0.0, "by_chance": 0.0}


def test_chains_are_counted_and_learned_from_on_the_others(monkeypatch, tmp_path):
    def one(k):
        odd = k % 2 == 1
        steps = ("fine", "oops: 1 + 1 = 3" if odd else "so: 1 + 1 = 2", "end")
        answer, target = ("a" if k % 3 else "b"), "a"
        return ReasoningTrace("", steps, answer, target, 1 if odd else None)

    traces = [one(k) for k in range(50)] + [one(0)] * 5
    monkeypatch.setattr(real_reasoning, "MISTAKE_TASKS", ("multistep_arithmetic", "word_sorting"))
    monkeypatch.setattr(real_reasoning, "read_bigbench_mistake", lambda folder, task: traces)
    found = real_reasoning.chains(tmp_path, splits=2)
    row = found["multistep_arithmetic"]
    assert (row["n"], row["with_mistake"], row["most_frequent"]) == (55, 25, 30)
    assert row["wrong_answer"] == 17 + 5 and row["lucky"] == 25 - 8
    assert row["right_steps_wrong_answer"] == 9 + 5
    assert row["checker"] == 55 and row["checker_of_mistakes"] == 25
    assert "checker" not in found["word_sorting"]
    for split, (learned, usual) in enumerate(row["learned"]):
        order = np.random.default_rng(split).permutation(55)
        place = np.array([t.first_mistake is not None for t in traces])
        mostly = place[order[11:]].mean() > 0.5
        assert learned == 1.0
        assert usual == pytest.approx((place[order[:11]] == mostly).mean(), abs=6e-5)


# --- real data, and what is stored ----------------------------------------------------------------


def test_the_stored_counts_of_verifiers_and_prompts_are_those_of_the_data():
    folder = real("gsm8k").parent
    real("prompt_oirl_llama2")
    stored = real_reasoning.stored()
    assert real_reasoning.verifiers(folder) == stored["verifiers"]
    again, kept = real_reasoning.prompts(folder, splits=1), stored["prompts"]
    assert again["sets"] == kept["sets"]
    for name, value in again["splits"][0].items():
        assert value == pytest.approx(kept["splits"][0][name], abs=0.01)


def test_the_stored_counts_of_mistakes_are_those_of_the_data():
    folder = real("bigbench_mistake").parent
    again, kept = real_reasoning.chains(folder, splits=1), real_reasoning.stored()["mistakes"]
    for task, row in again.items():
        stored = kept[task]
        assert {k: v for k, v in row.items() if k != "learned"} == {
            k: v for k, v in stored.items() if k != "learned"
        }
        np.testing.assert_allclose(row["learned"][0], stored["learned"][0], atol=0.05)


def test_a_label_overlooks_a_false_equation():
    """The chapter's example: -10 - (-32) - (-2) - (-25) is 49, and not 15."""
    chains = data.read_bigbench_mistake(real("bigbench_mistake"), "multistep_arithmetic")
    claim = "A - B - C - D = -10 - (-32) - (-2) - (-25) = 15"
    (found,) = [t for t in chains if any(claim in step for step in t.steps)]
    assert found.first_mistake is None and mistake_finding.equation_mistake(found) == 5
    assert mistake_finding.arithmetic_value(claim.split("=")[1]) == 49


def test_the_commands_refuse_bad_calls(capsys, tmp_path):
    assert real_reasoning.main([]) == 2
    with pytest.raises(errors.DataNotFoundError):
        reasoning_study.load(tmp_path / "none.json")
    with pytest.raises(errors.DataNotFoundError):
        data.read_prompt_results(tmp_path)


def tiny_study():
    return reasoning_study.Study(
        seeds=(0,),
        careful_steps=3,
        careless_steps=2,
        iterations=1,
        difficulty_iterations=1,
        difficulty_problems=6,
        difficulty_samples=2,
        problems=4,
        samples=2,
        choice_problems=6,
        choice_samples=2,
        choose_from=32,
        rollouts=2,
        spurious_iterations=1,
    )


# --- what the study reads off -------------------------------------------------------------------


def test_kinds_of_solutions_and_what_each_reward_pays_for():
    right, lucky, bare = remainders.solve(SAM), remainders.columnwise(SAM), "Answer:4"
    false, cut, empty = "15+8=23;23-4=19;Answer:3", "15+8=23;", ""
    paid = {
        reasoning_study.outcome_reward: [1, 1, 1, 0, 0, 0],
        reasoning_study.process_reward: [1, 0, 0, 0, 0, 0],
        reasoning_study.in_format: [1, 1, 0, 1, 0, 0],
        reasoning_study.wrong: [0, 0, 0, 1, 0, 0],
    }
    for reward, wanted in paid.items():
        assert [reward(SAM, y) for y in (right, lucky, bare, false, cut, empty)] == wanted
    kinds = [reasoning_study.luck_of(arithmetic.check(SAM, y)) for y in (right, lucky, bare, false)]
    assert kinds == ["sound", "wrong_step", "missing_steps", "wrong"]


def solutions(owner, **columns):
    """What `labelled` gives, as far as it is read."""
    return reasoning_study.Labelled(owner=list(owner), **columns)


def test_a_solution_is_scored_from_its_own_pieces():
    data = solutions([0, 0, 0, 1, 2, 2])
    chances = np.array([0.9, 0.5, 0.8, 0.3, 0.6, 0.7])
    for how, wanted in {
        "product": [0.36, 0.3, 0.42],
        "minimum": [0.5, 0.3, 0.6],
        "last": [0.8, 0.3, 0.7],
    }.items():
        found = reasoning_study._aggregated(chances, data, how)
        np.testing.assert_allclose(found, wanted)


def test_the_first_faulty_piece_is_looked_for_where_there_are_steps():
    """Solutions: faultless and found so, fault found, fault found too early, bare and not read."""
    data = solutions([0, 0, 1, 1, 1, 2, 2, 3], first_wrong=[-1, 1, 1, 0])
    chances = np.array([0.9, 0.5, 0.8, 0.49, 0.1, 0.2, 0.9, 0.1])
    found = reasoning_study._finds(chances, data)
    assert found == pytest.approx({"exact": 2 / 3, "exact_faulty": 1 / 2, "never": 1 / 3})


def test_votes_of_some_samples_are_averaged_over_draws():
    answers = np.array([[0, 0, 1, -1], [2, 3, 3, 2], [-1, -1, -1, -1]])
    truth, even = np.array([0, 2, 1]), np.ones((3, 4))
    rng = np.random.default_rng(0)
    assert reasoning_study._voted(answers, even, truth, 4, rng) == pytest.approx((1 + 0.5) / 3)
    heavy = np.array([[0.1, 0.1, 0.9, 9.0], [1.0, 0.2, 0.2, 1.0], [1.0] * 4])
    assert reasoning_study._voted(answers, heavy, truth, 4, rng) == pytest.approx(1 / 3)
    one = np.mean([reasoning_study._voted(answers, even, truth, 1, rng) for _ in range(300)])
    assert one == pytest.approx((0.5 + 0.5 + 0) / 3, abs=0.01)
    two = np.mean([reasoning_study._voted(answers, even, truth, 2, rng) for _ in range(300)])
    by_hand = np.mean([1, 0.5, 1, 0.5, 1, 0]), np.mean([0.5, 0.5, 1, 0, 0.5, 0.5])
    assert two == pytest.approx(sum(by_hand) / 3, abs=0.01)


def test_best_of_n_and_areas_of_a_judge():
    """The best of k of 32 is the one of rank i in C(i, k - 1) of C(32, k) choices."""
    rng = np.random.default_rng(0)
    scores, right, sound = rng.permutation(64), rng.random(64) < 0.6, rng.random(64) < 0.3
    data = solutions([], right=right.tolist(), sound=sound.tolist())
    found = reasoning_study._judged({"a": scores}, data, 32)
    for what, gold in (("right", right), ("sound", sound)):
        want = []
        for k in (1, 2, 4, 8, 16, 32):
            rows = []
            for s, g in zip(scores.reshape(2, 32), gold.reshape(2, 32), strict=True):
                chances = [math.comb(i, k - 1) / math.comb(32, k) for i in range(32)]
                rows.append(np.dot(chances, g[np.argsort(s)]))
            want.append(np.mean(rows))
        np.testing.assert_allclose(found["curves"]["a"][what], want)
        above = (scores[gold][:, None] > scores[~gold]).mean()
        assert found["auc"]["a"][what] == pytest.approx(above)


def test_a_study_goes_on_where_it_stopped(tmp_path, monkeypatch):
    jobs = ("start", "scratch")
    first = reasoning_study.sweep(tmp_path / "parts", tmp_path / "out.json", tiny_study(), jobs)
    monkeypatch.setitem(reasoning_study.JOBS, "start", lambda m: pytest.fail("done already"))
    monkeypatch.setitem(reasoning_study.JOBS, "scratch", lambda m: pytest.fail("done already"))
    again = reasoning_study.sweep(tmp_path / "parts", tmp_path / "out.json", tiny_study(), jobs)
    assert again["runs"] == first["runs"]
    found = reasoning_study.load(tmp_path / "out.json")["runs"]["start"]["0"]["start"]
    assert len(found["right"]) == 4 and sum(found["kinds"].values()) == pytest.approx(1)


def test_every_job_of_the_study_runs(tmp_path):
    jobs = tuple(reasoning_study.JOBS)
    reasoning_study.sweep(tmp_path, tmp_path / "out.json", tiny_study(), jobs)
    runs = {k: v["0"] for k, v in reasoning_study.load(tmp_path / "out.json")["runs"].items()}
    assert set(runs) == set(reasoning_study.JOBS)
    assert {len(runs[f"difficulty, {m}"]["hard"]) for m in ("rloo", "grpo", "dapo")} == {1}
    for judge, curve in runs["choose"]["curves"].items():
        for shares in curve.values():
            assert all(0 <= x <= 1 for x in shares), judge
    told = runs["choose"]["label_agreement"]
    assert all(count >= 0 for count in told.values()) and sum(told.values()) > 0


def test_prefixes_and_their_labels(tmp_path):
    material = reasoning_study.Material(0, tiny_study(), tmp_path)
    texts = ["15+8=23;23-4=19;Answer:4", "15+8=13;13-4=19;Answer:4", "Answer:4", ""]
    found = reasoning_study.labelled(material, [SAM], [texts])
    assert found.oracle == [True] * 3 + [False] * 3 + [False, False]
    assert found.owner == [0, 0, 0, 1, 1, 1, 2, 3]
    assert found.right == [True, True, True, False] and found.sound == [True, False, False, False]
    assert found.first_wrong == [-1, 0, 0, 0] and found.answers == [4, 4, 4, -1]
    label = reasoning_study.rollout_labels(material, found)
    assert label[np.array(found.whole)].tolist() == [1, 1, 1, 0]
    assert ((label >= 0) & (label <= 1)).all()
