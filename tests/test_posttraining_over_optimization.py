"""Ensembles, spectators, stopping rules and the stored study of over-optimisation."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from irlbook.errors import (
    CheckpointError,
    DataNotFoundError,
    InvalidHyperparameterError,
    RewardError,
    ShapeError,
    UninformativeDataError,
)
from irlbook.lm.trees import collate
from irlbook.posttraining import over_optimization as oo
from irlbook.posttraining import over_optimization_study as study
from irlbook.posttraining.online import OnlineResult


class Linear(nn.Module):
    """r = a * (sum of the response's tokens) + b * length + c."""

    def __init__(self, a=1.0, b=0.0, c=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([a, b, c]), requires_grad=False)

    def forward(self, tree):
        sums = torch.stack([x.sum() for x in tree.target.float().split(tree.lengths.tolist())])
        return self.w[0] * sums + self.w[1] * tree.lengths + self.w[2]


@pytest.fixture(scope="module")
def groups():
    rng = np.random.default_rng(0)
    return [
        ([1, 2], [rng.integers(3, 20, rng.integers(2, 9)).tolist() for _ in range(4)])
        for _ in range(25)
    ]


@pytest.fixture(scope="module")
def tree(groups):
    return collate(groups)


# Rewards made of rewards


@pytest.mark.parametrize("how", ["mean", "worst", "uncertainty"])
def test_an_ensemble_is_joined_from_standardised_members(groups, tree, how):
    members = [Linear(), Linear(0.2, 1.0, 5.0), Linear(-0.1, 3.0, -40.0)]
    ensemble = oo.RewardEnsemble(members, how, 0.7).standardise(groups)
    raw = np.array([member(tree).numpy() for member in members], dtype=float)
    z = (raw - raw.mean(1, keepdims=True)) / raw.std(1, ddof=1, keepdims=True)
    joined = {
        "mean": z.mean(0),
        "worst": z.min(0),
        "uncertainty": z.mean(0) - 0.7 * z.var(0),
    }[how]
    expected = (joined - joined.mean()) / joined.std(ddof=1)
    np.testing.assert_allclose(ensemble(tree).numpy(), expected, atol=1e-4)


def test_an_ensemble_does_not_see_a_members_zero_and_scale(groups, tree):
    plain = oo.RewardEnsemble([Linear(), Linear(0.0, 1.0)], "worst").standardise(groups)
    moved = oo.RewardEnsemble([Linear(9.0, 0.0, 70.0), Linear(0.0, 0.1, -8.0)], "worst")
    torch.testing.assert_close(moved.standardise(groups)(tree), plain(tree), atol=1e-4, rtol=0)


def test_planted_bug_worst_without_standardising_is_the_member_with_the_lowest_zero(tree):
    low = Linear(0.0, 1.0, -1000.0)
    joined = oo.RewardEnsemble([Linear(), Linear(2.0), low], "worst")(tree)
    torch.testing.assert_close(joined, low(tree))


def test_an_ensemble_of_one_is_that_model_in_standard_units(groups, tree):
    raw = Linear(2.0, 0.0, 3.0)(tree)
    found = oo.RewardEnsemble([Linear(2.0, 0.0, 3.0)]).standardise(groups)(tree)
    torch.testing.assert_close(found, (raw - raw.mean()) / raw.std(), atol=1e-4, rtol=0)


def test_standardising_twice_changes_nothing(groups, tree):
    ensemble = oo.RewardEnsemble([Linear(), Linear(0.0, 1.0)], "worst").standardise(groups)
    once = ensemble(tree)
    torch.testing.assert_close(ensemble.standardise(groups)(tree), once)


def test_ensembles_that_make_no_sense_are_refused(groups):
    with pytest.raises(InvalidHyperparameterError):
        oo.RewardEnsemble([])
    with pytest.raises(InvalidHyperparameterError):
        oo.RewardEnsemble([Linear()], "best")
    with pytest.raises(UninformativeDataError, match="same reward"):
        oo.RewardEnsemble([Linear(0.0)]).standardise(groups)


def test_a_length_penalty_takes_off_a_price_a_token(tree):
    penalised = oo.LengthPenalty(Linear(), 0.5, 4.0)
    expected = Linear()(tree) - 0.5 * (tree.lengths - 4.0)
    torch.testing.assert_close(penalised(tree), expected)
    with pytest.raises(InvalidHyperparameterError):
        oo.LengthPenalty(Linear(), -1.0, 4.0)


def test_spectators_change_nothing_and_are_averaged_over_micro_batches(groups, tree):
    watch = oo.Watch(Linear(), {"watch_length": Linear(0.0, 1.0)})
    parts = [watch(collate(groups[:10])), watch(collate(groups[10:]))]
    torch.testing.assert_close(torch.cat(parts), Linear()(tree))
    assert watch.take()["watch_length"] == pytest.approx(float(tree.lengths.double().mean()))
    watch(collate(groups[:1]))
    first = [len(y) for y in groups[0][1]]
    assert watch.take()["watch_length"] == pytest.approx(np.mean(first))


def test_a_member_that_cannot_be_scaled_is_named_by_its_place(groups):
    with pytest.raises(UninformativeDataError, match=r"member 2 \(counted from 0\)"):
        oo.RewardEnsemble([Linear(), Linear(2.0), Linear(0.0)]).standardise(groups)


def test_a_price_of_length_may_be_nothing_and_not_nan(tree):
    torch.testing.assert_close(oo.LengthPenalty(Linear(), 0.0, 4.0)(tree), Linear()(tree))
    with pytest.raises(InvalidHyperparameterError, match="price is nan"):
        oo.LengthPenalty(Linear(), float("nan"), 4.0)


def test_spectators_carry_no_gradient_and_the_reward_does(groups):
    reward, spectator = Linear(), Linear(0.0, 1.0)
    for module in (reward, spectator):
        module.w.requires_grad_()
    watch = oo.Watch(reward, {"watch_length": spectator})
    watch(collate(groups[:2])).sum().backward()
    assert reward.w.grad.any() and spectator.w.grad is None
    assert set(watch.take()) == {"watch_length"} and watch.take() == {}


# Reading curves


def test_smooth_is_a_mean_of_what_is_past():
    np.testing.assert_allclose(oo.smooth([1.0, 3.0, 8.0, 1.0], 3), [1.0, 2.0, 4.0, 4.0])
    np.testing.assert_allclose(oo.smooth(np.eye(3), 1), np.eye(3))
    with pytest.raises(InvalidHyperparameterError):
        oo.smooth([1.0], 0)


def test_a_peak_chosen_elsewhere_is_not_biased_and_one_chosen_here_is():
    noise = np.random.default_rng(0).normal(size=(400, 8, 20))  # gold is 0 everywhere
    elsewhere = np.array([oo.best_elsewhere(curves)[1].mean() for curves in noise])
    assert abs(elsewhere.mean()) < 4 * elsewhere.std() / 20
    assert noise.max(2).mean() > 1.5
    with pytest.raises(ShapeError):
        oo.best_elsewhere(np.zeros((1, 5)))


def test_best_elsewhere_finds_a_peak_that_all_share():
    places, values = oo.best_elsewhere(np.tile([0.0, 2.0, 1.0], (4, 1)))
    assert places.tolist() == [1] * 4 and values.tolist() == [2.0] * 4


def test_values_are_read_where_the_kl_is_first_reached():
    kl = np.array([-0.1, 1.0, 3.0, 2.0, 5.0])
    found = oo.at_kl(kl, np.array([0.0, 1.0, 3.0, 9.0, 5.0]), [0.5, 2.0, 4.0, 6.0])
    np.testing.assert_allclose(found, [0.5, 2.0, 4.0, np.nan])
    with pytest.raises(ShapeError):
        oo.at_kl(kl, kl[:2], [1.0])


def test_length_control_removes_what_length_alone_won():
    rng = np.random.default_rng(0)
    longer = rng.normal(2.0, 4.0, size=4000)
    by_length = 1 / (1 + np.exp(-2.0 * np.tanh(longer / longer.std())))
    assert by_length.mean() > 0.6
    assert oo.length_controlled_win_rate(by_length, longer) == pytest.approx(0.5, abs=0.01)
    better = 1 / (1 + np.exp(-1.0 - 2.0 * np.tanh(longer / longer.std())))
    expected = 1 / (1 + np.exp(-1.0))
    assert oo.length_controlled_win_rate(better, longer) == pytest.approx(expected, abs=0.01)


def test_length_control_without_a_difference_is_the_win_rate():
    wins = np.array([1.0, 1.0, 0.0, 1.0, 0.5])
    found = oo.length_controlled_win_rate(wins, np.zeros(5), l2=1e-9)
    assert found == pytest.approx(wins.mean(), abs=1e-6)
    assert oo.length_controlled_win_rate(np.ones(50), np.arange(50.0)) < 1  # and it ends
    with pytest.raises(RewardError, match="wins"):
        oo.length_controlled_win_rate(np.array([2.0]), np.zeros(1))


def test_a_curve_is_read_up_to_its_largest_kl_itself():
    kl, values = np.array([0.0, 2.0, 1.0, 4.0]), np.array([0.0, 1.0, 7.0, 2.0])
    found = oo.at_kl(kl, values, [0.0, 2.0, 4.0, 4.0 + 1e-9])
    np.testing.assert_allclose(found, [0.0, 1.0, 2.0, np.nan])
    for bad in ((kl[None], values[None]), (kl, values[1:])):
        with pytest.raises(ShapeError, match="flat and alike"):
            oo.at_kl(*bad, [1.0])


def test_length_control_is_a_penalised_regression_of_the_judge():
    rng = np.random.default_rng(3)
    wins, longer = rng.integers(0, 3, 40) / 2, rng.normal(1.0, 3.0, 40)
    x = np.tanh(longer / longer.std())

    def loss(v, l2):
        z = v[0] + v[1] * x
        return (np.log1p(np.exp(z)) - wins * z).mean() + l2 / 2 * v @ v

    for l2 in (0.3, 1e-4):
        a, b = minimize(loss, np.zeros(2), args=(l2,), tol=1e-12).x
        assert abs(b) > 0.01
        found = oo.length_controlled_win_rate(wins, longer, l2)
        assert found == pytest.approx(1 / (1 + np.exp(-a)), abs=1e-6)
    assert found == oo.length_controlled_win_rate(wins, longer)  # the penalty if none is given
    for bad in ((wins, longer[1:]), (wins[:0], longer[:0]), (wins[None], longer[None])):
        with pytest.raises(ShapeError, match="flat and alike"):
            oo.length_controlled_win_rate(*bad)
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(RewardError, match=r"\[0, 1\]"):
            oo.length_controlled_win_rate(np.array([wrong, 0.5]), np.zeros(2))


# When to stop


def rows_of(name, values):
    return [{"iteration": i + 1, name: v} for i, v in enumerate(values)]


def test_a_rule_stops_after_a_fall_and_not_after_a_dip():
    rule = oo.when_falls("watch", window=1, patience=3)
    assert oo.stops_at(rule, rows_of("watch", [0, 1, 2, 1, 1, 3, 4, 3, 3, 3, 9])) == 10
    assert oo.stops_at(rule, rows_of("watch", range(8))) == 8
    assert rule([]) is None
    assert oo.best_row("watch", rows_of("watch", [0, 1, 2, 1]), window=1) == 2


def test_a_budget_stops_when_the_smoothed_column_exceeds_it():
    rule = oo.when_above("kl", 2.0, window=2)
    assert oo.stops_at(rule, rows_of("kl", [0.0, 1.0, 2.5, 2.5, 9.0])) == 4
    assert "above 2" in rule(rows_of("kl", [5.0]))


def test_rules_without_settings_smooth_over_three_and_wait_for_six():
    values = [0.0, 0.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    rows = rows_of("watch", values)  # smoothed: 0 0 2 2 2 0 ...
    np.testing.assert_allclose(oo.smooth(values)[:6], [0, 0, 2, 2, 2, 0])
    assert oo.best_row("watch", rows) == 2
    assert oo.stops_at(oo.when_falls("watch"), rows) == 9  # row 8 is the sixth after row 2
    assert oo.when_falls("watch")(rows[:9]) == "watch has been below its best for 6 iterations"
    assert oo.when_falls("watch")(rows[:8]) is None
    rule = oo.when_above("watch", 2.0)
    assert rule(rows) is None and rule(rows[:3]) is None  # at the limit is not above it
    assert oo.when_above("watch", 1.9)(rows[:3]) == "watch is 2, above 1.9" and rule([]) is None


# The study


TINY = study.Study(
    seeds=(0, 6),
    iterations=2,
    prompts=3,
    samples=2,
    max_new_tokens=24,
    choice_prompts=3,
    choice_samples=8,
    ns=(1, 2, 8),
    look_every=1,
)
FEW = {
    "plain": study.Condition(pairs=32),
    "worst of 3": study.Condition(pairs=32, members=2, how="worst", length_price=0.0),
    "gold": study.Condition(oracle=True),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, study.sweep(folder / "found.json", TINY, FEW, progress=False)


def test_a_conditions_settings_reach_its_run():
    material = study.Material(6, TINY)
    assert material.base == 1 and material.faster == 1.0
    found = material.config(study.Condition(beta=0.2))
    assert (found.method, found.beta, found.max_kl) == ("rloo", 0.2, 1e4)
    assert (found.iterations, found.prompts, found.samples) == (2, 3, 2)
    assert found.max_new_tokens == 24 and material.config().beta == 0.05
    steps = found.training
    assert (steps.learning_rate, steps.final_learning_rate) == (6e-4, 1.0)
    assert (steps.warmup, steps.weight_decay, steps.evaluate_every) == (0.0, 0.0, 1)
    texts = [[study.decode(material.tokenizer, y) for y in ys] for _, ys in material.drawn]
    asked = [p for p in material.prompts for _ in range(4)]
    scaled = np.array(material.gold_reward()(asked, [y for ys in texts for y in ys]))
    assert scaled.mean() == pytest.approx(0, abs=1e-9)
    assert scaled.std(ddof=1) == pytest.approx(1)


def test_best_of_n_asks_different_prompts(monkeypatch):
    material = study.Material(0, replace(TINY, choice_prompts=96, choice_samples=8))
    asked = []
    monkeypatch.setattr(
        material, "sample", lambda model, prompts, n, stream: asked.append(prompts) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        study.choose(material, {"gold": study.Condition(oracle=True)})
    assert len(asked[0]) == 96 and sorted(asked[0]) == sorted(material.prompts)


def by_hand():
    run = {
        "columns": {"reward": [1.0, 2.0], "gold": [0.5, 0.25], "kl": [0.0, 0.5]},
        "parts": {"length": [0.1, 0.2], "tone": [0.4, 0.05]},
        "texts": [{"iteration": 0, "prompt": "x", "response": "y"}],
    }
    other = {
        "columns": {"reward": [3.0, 4.0], "gold": [1.0, 1.0], "kl": [0.1, 0.2]},
        "parts": {"length": [0.3, 0.3], "tone": [0.7, 0.7]},
        "texts": [],
    }
    best = {seed: {"plain": {"proxy": [0.0, k], "gold": [k, 1.0]}} for k, seed in enumerate("37")}
    return study.Results({"runs": {"plain": {"3": run, "7": other}}, "best_of_n": best})


def test_what_is_stored_is_read_by_seed_and_column():
    found = by_hand()
    assert found.seeds() == (3, 7) and found.conditions == ["plain"]
    assert found.column("plain", "reward").tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert found.parts("plain")["tone"].tolist() == [[0.4, 0.05], [0.7, 0.7]]
    rows = found.rows("plain", 7)
    assert rows == [{"reward": 3.0, "kl": 0.1}, {"reward": 4.0, "kl": 0.2}]
    assert found.texts("plain", 3)[0]["response"] == "y"
    assert found.best_of_n("plain", "proxy").tolist() == [[0.0, 0.0], [0.0, 1.0]]
    assert found.best_of_n("plain", "gold").tolist() == [[0.0, 1.0], [1.0, 1.0]]
    made = OnlineResult(None, [{"reward": 3.3, "gold": 0.7, "kl": 0.1}, {"reward": 9.0}])
    assert study.compare(found, made, "plain", 7, 1) == pytest.approx((0.3 + 0.3 + 0.0) / 3)


def test_a_record_keeps_columns_and_parts_to_four_digits():
    history = [{"reward": 1.23456, "watch_sum": 0.5, "loss": 7.0, "kl": 0.1, "iteration": 1}]
    looks = study.Looks(None, [{"tone": 0.00004}], [{"iteration": 0}])
    assert study.record(OnlineResult(None, history), looks) == {
        "columns": {"reward": [1.2346], "watch_sum": [0.5], "kl": [0.1]},
        "parts": {"tone": [0.0]},
        "texts": [{"iteration": 0}],
    }


def test_the_study_keeps_every_column_of_every_run(tiny):
    _, found = tiny
    assert (
        found.conditions == list(FEW)
        and found.seeds("worst of 3") == (0, 6)
        and found.study == TINY
    )
    for name in FEW:
        for column in study.COLUMNS:
            values = found.column(name, column)
            assert values.shape == (2, 2) and np.isfinite(values).all()
    assert found.column("plain", "watch_sum").shape == (2, 2)
    parts = found.parts("plain")
    total = sum(parts.values())
    np.testing.assert_allclose(total, found.column("plain", "gold"), atol=1e-3)
    assert [row["iteration"] for row in found.texts("plain", 0)[::3]] == [0, 1, 2]
    with pytest.raises(DataNotFoundError, match="no condition"):
        found.column("other", "gold")


def test_a_stopping_rule_gets_rows_without_gold(tiny):
    rows = tiny[1].rows("plain", 6)
    assert len(rows) == 2 and not any("gold" in name for name in rows[0])
    assert {"reward", "kl", "watch_last"} <= set(rows[0])


def test_best_of_1_is_the_mean_and_gold_chooses_best_by_gold(tiny):
    found = tiny[1]
    gold = {name: found.best_of_n(name, "gold") for name in ("plain", "worst of 3", "gold")}
    np.testing.assert_allclose(gold["plain"][:, 0], gold["gold"][:, 0], atol=1e-3)
    assert (gold["gold"] >= np.maximum(gold["plain"], gold["worst of 3"]) - 1e-3).all()


def test_the_same_call_again_runs_nothing_and_writes_the_same(tiny, monkeypatch):
    folder, found = tiny
    monkeypatch.setattr(study, "Material", None)  # would raise
    text = (folder / "found.json").read_text(encoding="utf-8")
    again = study.sweep(folder / "found.json", TINY, FEW, progress=False)
    assert again.raw == found.raw
    assert (folder / "found.json").read_text(encoding="utf-8") == text


def test_a_sweep_that_was_killed_goes_on_with_what_is_missing(tiny, monkeypatch):
    folder, found = tiny
    parts = sorted((folder / "found.parts").glob("*.json"))
    assert len(parts) == 2 * (len(FEW) + 1)
    lost = next(p for p in parts if "choices" not in json.loads(p.read_text(encoding="utf-8")))
    lost.unlink()
    ran = []
    run = study.run
    monkeypatch.setattr(study, "run", lambda *a, **k: ran.append(1) or run(*a, **k))
    again = study.sweep(folder / "found.json", TINY, FEW, progress=False)
    assert len(ran) == 1 and again.raw["runs"] == found.raw["runs"]  # to the last digit stored


def test_a_broken_part_is_named(tiny):
    folder, _ = tiny
    part = next((folder / "found.parts").glob("*.json"))
    whole = part.read_text(encoding="utf-8")
    try:
        part.write_text(whole[:40], encoding="utf-8")
        with pytest.raises(CheckpointError, match=part.name):
            study.sweep(folder / "found.json", TINY, FEW, progress=False)
    finally:
        part.write_text(whole, encoding="utf-8")


def test_the_beginning_of_a_run_is_that_of_the_stored_one_and_a_rule_ends_it(tiny):
    found = tiny[1]
    material = study.Material(6, TINY)
    result, _ = study.run(material, FEW["plain"], iterations=1)
    assert study.compare(found, result, "plain", 6, 1) < 1e-3
    stopped, _ = study.run(material, FEW["plain"], stop=oo.when_above("kl", -1e9))
    assert len(stopped.history) == 1 and "above" in stopped.stopped


def test_a_missing_result_says_how_to_make_it(tmp_path):
    with pytest.raises(DataNotFoundError, match="python -m"):
        study.load(tmp_path / "none.json")


# The stored result


def test_the_stored_result_is_of_this_code_and_complete():
    stored = study.load()
    assert study.STORED.stat().st_size + study.STORED_LONGER.stat().st_size < 1e6
    assert stored.study == study.Study() and len(stored.seeds()) >= 8
    assert stored.raw["conditions"] == {k: asdict(c) for k, c in study.CONDITIONS.items()}
    for name in stored.conditions:
        assert len(stored.seeds(name)) >= 5
        for column in ("reward", "gold", "kl", "length"):
            values = stored.column(name, column)
            assert values.shape == (len(stored.seeds(name)), stored.study.iterations)
            assert np.isfinite(values).all()
    assert {"torch", "numpy", "python"} <= set(stored.raw["made_with"])


def test_the_longer_runs_go_on_from_the_stored_ones():
    stored, longer = study.load(), study.load(study.STORED_LONGER)
    assert longer.study == study.LONGER and longer.conditions == list(study.LONGER_CONDITIONS)
    first = stored.study.iterations
    for name in longer.conditions:
        both = [results.column(name, "gold")[:, :first] for results in (stored, longer)]
        np.testing.assert_allclose(*both, atol=1e-3)
