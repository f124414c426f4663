"""Each displayed equation of chapter 22 that has code, and the names in its table."""

import importlib
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

from irlbook.data.audit import audit_preferences, label_noise
from irlbook.data.records import Preference
from irlbook.lm import costs, models
from irlbook.lm.enumerable import EnumerableLM
from irlbook.posttraining import cost_study
from irlbook.posttraining.staleness import softmax_policy, stale_gradient
from irlbook.stats import power_of

CHAPTER = Path(__file__).resolve().parents[1] / "chapters" / "22_practice.ipynb"


@pytest.mark.parametrize("wrong", [0.05, 0.25, 0.4])
def test_eq_22_1_disagreement_gives_the_noise_back(wrong):
    """Of exact shares: of 10^6 questions with two labels, 2e(1-e) disagree."""
    apart = round(2 * wrong * (1 - wrong) * 10**4)
    labels = [(0, 1)] * apart + [(1, 1)] * (10**4 - apart)
    assert label_noise(labels) == pytest.approx(wrong, abs=2e-3)


@pytest.mark.parametrize("counts", [[3, 3, 3], [1, 1, 10], [5]])
def test_eq_22_2_effective_prompts(counts):
    pairs = [
        Preference(f"prompt {x}", f"yes {x} {i}", f"no {x} {i}")
        for x, n in enumerate(counts)
        for i in range(n)
    ]
    want = sum(counts) ** 2 / sum(n * n for n in counts)
    assert audit_preferences(pairs).effective_prompts == pytest.approx(want)
    assert want <= len(counts)


def test_eq_22_3_standard_error_by_simulation():
    rng = np.random.default_rng(0)
    tau, sigma, n, k = 0.4, 1.0, 30, 3
    means = (
        tau * rng.normal(size=(20_000, n))
        + (sigma * rng.normal(size=(2, 20_000, n, k))).mean(axis=3)[0]
        - (sigma * rng.normal(size=(20_000, n, k))).mean(axis=2)
    ).mean(axis=1)
    error = np.sqrt((tau**2 + 2 * sigma**2 / k) / n)
    assert means.std() == pytest.approx(error, rel=0.02)
    from scipy.stats import norm

    assert power_of(2 * error, tau, sigma, n, k) == pytest.approx(
        norm.sf(1.959964 - 2) + norm.cdf(-1.959964 - 2), abs=1e-6
    )


def test_eq_22_4_and_22_5_memory_by_hand():
    sized = costs.Architecture.of(models.tiny_lm(100, hidden=16, layers=2, heads=2).config)
    p, h, a, i = sized.parameters, 16, 16, sized.intermediate
    said = costs.training_memory(sized, 50, 20)
    assert (said.weights, said.gradients, said.optimiser) == (4 * p, 4 * p, 8 * p)
    assert said.activations == 50 * (2 * (6 * h + 5 * a + 4 * i) + 3 * h) * 4
    assert said.head == 3 * 20 * 100 * 4
    assert said.peak == 12 * p + max(said.activations + said.head, 4 * p)


def test_eq_22_5_holds_for_measured_tensors():
    found = cost_study.measure_case(
        vocabulary=200, hidden=32, layers=2, rows=8, prompt=9, response=9
    )
    assert found["allocated"] == pytest.approx(found["said"], rel=0.15)


def test_eq_22_6_plain_ratio_and_clip_by_hand():
    """One token, so the sum over responses can be written down."""
    lm = EnumerableLM.create(("a", "b", "END"), 1, lambda p: np.array([[0.5, 0.3, 0.2]]))
    old = softmax_policy(lm, np.log(np.where(lm.policy > 0, lm.policy, 1)) * 0.5)
    reward = np.array([1.0, 0.0, -1.0])
    new, drawn = lm.policy[0], old[0]
    advantage = reward - drawn @ reward
    ratio = new / drawn
    for way, c in {
        "plain": np.ones(3),
        "ratio": ratio,
        "clip": np.where(np.where(advantage > 0, ratio > 1.2, ratio < 0.8), 0.0, ratio),
    }.items():
        weight = drawn * advantage * c
        want = weight - weight.sum() * new
        np.testing.assert_allclose(stale_gradient(lm, lm.policy, old, reward, way)[0], want)


def test_the_modules_of_the_open_problems_exist():
    text = "\n".join(c.source for c in nbformat.read(CHAPTER, as_version=4).cells)
    table = text[text.index("| open problem |") :]
    names = re.findall(r"`([a-z_]+\.[a-z_]+)`", table[: table.index("\n\n")])
    assert len(names) >= 12
    for name in names:
        importlib.import_module(f"irlbook.{name}")


def test_every_open_problem_of_the_map_is_in_the_table():
    page = (CHAPTER.parents[1] / "docs" / "survey.md").read_text(encoding="utf-8")
    text = "\n".join(c.source for c in nbformat.read(CHAPTER, as_version=4).cells)
    for problem in re.findall(r"^\| Open: ([^|]+) \|", page, re.MULTILINE):
        words = {"annotation": "annotation noise", "informative pairs": "informative pairs"}
        assert f"| {words.get(problem.strip(), problem.strip())} |" in text, problem
