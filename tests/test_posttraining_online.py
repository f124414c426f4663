"""Online training: exact gradients and optima on an enumerable model, resume, bad input."""

import copy
import itertools
import json
import math
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import run_two
from torch import nn

from irlbook.errors import (
    ConstantRewardWarning,
    EndlessResponsesWarning,
    InvalidHyperparameterError,
    ResumeMismatchError,
    RewardError,
    SamplingError,
)
from irlbook.lm import models
from irlbook.lm.enumerable import EnumerableLM, expectation, kl_from_logps
from irlbook.lm.sampling import Samples, sample
from irlbook.lm.token_table import TokenTable
from irlbook.lm.tokenization import train_tokenizer
from irlbook.posttraining import online, rollouts
from irlbook.posttraining import policy_gradient as pg
from irlbook.posttraining.online import OnlineConfig, train_online
from irlbook.training import StepConfig, TrainingConfig

# An enumerable world ------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
LM = EnumerableLM.create(("a", "end"), 2, lambda rows: RNG.dirichlet(np.ones(2) * 3, len(rows)))
IDS = [tuple(ids) for ids in LM.response_ids()]
REWARD = np.array([1.0, -0.5, 2.0])
BETA = 0.3


class Table(TokenTable):
    """With the states that a value head reads: one for each prefix."""

    def __init__(self) -> None:
        super().__init__(LM)
        self.state_size = LM.n_states

    def response_states(self, tree):
        return nn.functional.one_hot(self._prefixes(tree), LM.n_states).to(self.logits.dtype)


class Letters:
    """As much of a tokenizer as a table needs."""

    chat_template, bos_token_id, eos_token_id, pad_token_id = None, None, 1, 1

    def __call__(self, text, **options):
        from types import SimpleNamespace

        return SimpleNamespace(input_ids=[0])


class Lookup(nn.Module):
    """The world's reward as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(REWARD))

    def forward(self, tree):
        answers = tree.target.split(tree.lengths.tolist())
        return self.table[[IDS.index(tuple(y.tolist())) for y in answers]]


def as_samples(table, picks, n, temperature=1.0) -> Samples:
    """The responses `picks` with their log-probabilities under the table as it is."""
    logits = table.logits.detach() / (temperature or 1.0)
    steps = logits.log_softmax(1)
    groups, logps = [], []
    for i in range(0, len(picks), n):
        answers = [list(IDS[j]) for j in picks[i : i + n]]
        groups.append(([0], answers))
        for ids in answers:
            state, found = 0, []
            for token in ids:
                found.append(steps[state, token])
                state = int(LM.children[state, token])
            logps.append(torch.stack(found))
    return Samples(groups, logps, [IDS[j][-1] == 1 for j in picks], temperature)


def draw_from_table(table, prompts, n, *, temperature, seeds, **_):
    p = np.exp(LM.sequence_log_probabilities(table.policy()))
    if temperature == 0:
        return as_samples(table, [int(p.argmax())] * len(prompts), 1)
    picks = [np.random.default_rng(seed).choice(len(p), n, p=p / p.sum()) for seed in seeds]
    return as_samples(table, [int(j) for row in picks for j in row], n)


def settings(**changes) -> StepConfig:
    quiet = {"progress": False, "tensorboard": False, "warmup": 0.0, "final_learning_rate": 1.0}
    return StepConfig(**quiet | changes)


def table_config(method, **changes) -> OnlineConfig:
    given = {
        "training": settings(learning_rate=0.03, weight_decay=0.0),
        "iterations": 1,
        "prompts": 1,
        "samples": 2,
        "max_new_tokens": 2,
        "beta": BETA,
    }
    return OnlineConfig(method=method, **given | changes)


@pytest.fixture
def plain_steps(monkeypatch):
    """Gradient descent with rate 1 in the place of AdamW: a step is minus the gradient."""
    monkeypatch.setattr(
        online, "adamw", lambda module, *_: torch.optim.SGD(module.parameters(), lr=1.0)
    )
    return settings(learning_rate=1.0, max_grad_norm=math.inf)


def expected_step(config, k, first_row=False):
    """Mean over all k-tuples of responses of what one iteration does to the logits."""
    p, mean, total = np.exp(LM.sequence_log_probabilities()), 0.0, 0.0
    for pick in itertools.product(range(len(IDS)), repeat=k):

        def drawn(table, prompts, n, *, temperature, pick=pick, **_):
            best = int(p.argmax())
            return as_samples(table, pick if temperature else [best], n if temperature else 1)

        table = Table()
        result = train_online(table, Letters(), ["x"], Lookup(), config, sampler=drawn)
        step = (result.policy.logits - table.logits).detach().numpy()
        mean = mean + p[list(pick)].prod() * step
        total += p[list(pick)].prod()
    assert total == pytest.approx(1)
    return mean


EXACT = {"ppo": {"lam": 1.0, "whiten": False, "value_weight": 0}}


@pytest.mark.parametrize("method", ["reinforce", "remax", "rloo", "ppo"])
def test_the_expected_step_is_the_exact_gradient_of_reward_less_kl(method, plain_steps):
    """The policy is the start, so KL is 0; its gradient is too: the second case has left it."""
    config = table_config(
        method,
        training=plain_steps,
        normalisation="constant",
        **EXACT.get(method, {}),
    )
    scale = 1 / config.settled().constant  # ppo's constant is the greatest length
    np.testing.assert_allclose(
        expected_step(config, 2), scale * LM.policy_gradient(REWARD), atol=1e-12
    )


@pytest.mark.parametrize("method", ["reinforce", "remax", "rloo", "ppo"])
def test_away_from_the_start_the_penalty_has_the_gradient_of_kl(method, plain_steps, monkeypatch):
    away = np.log(LM.policy) + np.random.default_rng(3).normal(size=LM.policy.shape)
    policy = np.exp(away) / np.exp(away).sum(1, keepdims=True)
    log_p, log_ref = LM.sequence_log_probabilities(policy), LM.sequence_log_probabilities()
    exact = LM.policy_gradient(REWARD - BETA * (log_p - log_ref), policy)
    config = table_config(
        method,
        training=plain_steps,
        normalisation="constant",
        **EXACT.get(method, {}),
    )
    usual, p, mean = rollouts.PolicyScorer.__init__, np.exp(log_p), 0.0

    def moved(self, model, *options):  # the policy, which is built second, not the reference
        if model.logits.requires_grad:
            model.logits.data.copy_(torch.tensor(away))
        usual(self, model, *options)

    monkeypatch.setattr(rollouts.PolicyScorer, "__init__", moved)
    for pick in itertools.product(range(len(IDS)), repeat=2):

        def drawn(table, prompts, n, *, temperature, pick=pick, **_):
            return as_samples(table, pick if temperature else [0], n if temperature else 1)

        result = train_online(Table(), Letters(), ["x"], Lookup(), config, sampler=drawn)
        mean = mean + p[list(pick)].prod() * (result.policy.logits.detach().numpy() - away)
    np.testing.assert_allclose(mean, exact / config.settled().constant, atol=1e-12)


def test_dr_grpo_shrinks_and_grpo_turns_the_gradient(plain_steps):
    exact = LM.policy_gradient(REWARD)
    options = {"training": plain_steps, "beta": 0.0, "samples": 3}
    plain = expected_step(table_config("dr_grpo", **options), 3)
    np.testing.assert_allclose(plain, 2 / 3 / 2 * exact, atol=1e-12)  # (k - 1) / k over the length
    grpo = expected_step(table_config("grpo", **options), 3)
    cosine = (grpo * exact).sum() / np.linalg.norm(grpo) / np.linalg.norm(exact)
    assert 0.5 < cosine < 0.9999


@pytest.mark.parametrize("method", ["reinforce", "remax", "rloo", "ppo", "dr_grpo"])
def test_training_reaches_the_optimum_of_reward_less_kl(method):
    optimum = LM.kl_optimum(REWARD, BETA)
    config = table_config(method, iterations=60, prompts=8, samples=4, kl="penalty")
    config = replace(config, training=settings(learning_rate=0.1, weight_decay=0.0))
    result = train_online(Table(), Letters(), ["x"] * 8, Lookup(), config, sampler=draw_from_table)
    log_p = LM.sequence_log_probabilities(result.policy.policy())
    log_ref = LM.sequence_log_probabilities()
    reached = expectation(log_p, REWARD) - BETA * kl_from_logps(log_p, log_ref)
    assert result.stopped is None and len(result.history) == 60
    assert optimum.values[0] - 0.03 < reached <= optimum.values[0] + 1e-9
    assert result.column("kl")[-20:].mean() == pytest.approx(
        kl_from_logps(optimum.log_probabilities, log_ref), abs=0.25
    )


def test_ppo_values_approach_those_of_the_prefixes():
    """At a rate of 0 for the policy, V goes to E[r - later KL | prefix], and explains the most."""
    config = table_config(
        "ppo", iterations=60, prompts=32, samples=4, lam=1.0, value_rate=1e6, value_clip=math.inf
    )
    config = replace(config, training=settings(learning_rate=1e-7, weight_decay=0.0))
    found = []

    class Spy(rollouts.PolicyScorer):
        def __init__(self, *options):
            super().__init__(*options)
            found.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online, "PolicyScorer", Spy)
        result = train_online(
            Table(), Letters(), ["x"] * 32, Lookup(), config, sampler=draw_from_table
        )
    values = (found[-1].value.weight[0] + found[-1].value.bias).detach().numpy()
    exact = LM.prefix_values(REWARD)
    live = LM.children[:, 0] >= 0
    np.testing.assert_allclose(values[live], exact[live], atol=0.25)
    assert result.column("value_loss")[-1] < 0.8 * result.column("value_loss")[0]
    assert result.column("explained_variance")[-20:].mean() > 0


# Pure parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalisation", ["sequence", "token", "constant"])
def test_token_weights_are_those_of_aggregate(normalisation):
    lengths, losses = torch.tensor([3, 1, 4]), torch.randn(8, dtype=torch.float64)
    weights = online.token_weights(lengths, normalisation, 7.0)
    torch.testing.assert_close(
        (weights * losses).sum(), pg.aggregate(losses, lengths, normalisation, 7.0)
    )


def test_advantages_by_hand():
    rewards, lengths = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([2, 1, 1, 1])
    none = torch.zeros(5)

    def found(method, penalty=none, **more):
        return online.token_advantages(OnlineConfig(method), rewards, lengths, penalty, **more)[0]

    torch.testing.assert_close(found("rloo"), torch.tensor([-2.0, -2.0, 2.0, 0.0, 0.0]))
    torch.testing.assert_close(found("dr_grpo"), torch.tensor([-1.0, -1.0, 1.0, 0.0, 0.0]))
    std = 2**0.5
    torch.testing.assert_close(found("grpo"), torch.tensor([-1, -1, 1, 0, 0]) / std)
    torch.testing.assert_close(  # r less the mean of the three others
        found("reinforce"), torch.tensor([0.0, 0.0, 8 / 3, -4 / 3, -4 / 3])
    )
    torch.testing.assert_close(
        found("remax", greedy=torch.tensor([1.0, 2.0])), torch.tensor([0.0, 0.0, 2.0, -2.0, -2.0])
    )
    fee = torch.tensor([0.5, 0.5, 0.0, 0.0, 0.0])  # a nat's worth on the first response
    torch.testing.assert_close(found("rloo", fee), torch.tensor([-3.0, -3.0, 3.0, 0.0, 0.0]))


def test_ppo_pays_each_token_for_its_own_kl_and_the_last_one_the_reward():
    config = OnlineConfig("ppo", lam=1.0, whiten=False)
    a, targets = online.token_advantages(
        config,
        torch.tensor([[2.0], [1.0]]),
        torch.tensor([2, 1]),
        torch.tensor([0.25, 0.5, 0.125]),
        torch.tensor([1.0, 1.0, 0.0]),
    )
    torch.testing.assert_close(targets, torch.tensor([1.25, 1.5, 0.875]))
    torch.testing.assert_close(a, torch.tensor([0.25, 0.5, 0.875]))


def test_explained_variance():
    targets = torch.tensor([1.0, 2.0, 4.0])
    assert online.explained_variance(targets, targets) == 1
    assert online.explained_variance(torch.zeros(3), targets) == 0
    assert online.explained_variance(torch.zeros(3), torch.ones(3)) == 0  # not NaN


def test_a_stopping_rule_never_sees_gold():
    rows = [{"reward": 1.0, "gold": 2.0, "held_out_gold": 3.0}]
    assert online.without_gold(rows) == [{"reward": 1.0}]


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"method": "ppg"}, "method"),
        ({"method": "rloo", "samples": 1}, "samples"),
        ({"method": "rloo", "epochs": 2}, "first step"),
        ({"iterations": 0}, "iterations"),
        ({"temperature": 0.0}, "temperature"),
        ({"beta": -1.0}, "beta"),
        ({"training": TrainingConfig()}, "give a StepConfig"),
    ],
)
def test_bad_settings_are_named(changes, named):
    with pytest.raises(InvalidHyperparameterError, match=named):
        OnlineConfig(**changes)


# A transformers model -----------------------------------------------------------------------------

PROMPTS = [f"say {word}" for word in ("bus", "cafe", "film", "park", "gym", "zoo")]


@pytest.fixture(scope="module")
def start():
    tokenizer = train_tokenizer(PROMPTS, 300)
    return models.tiny_lm(tokenizer, hidden=16, layers=1, heads=2, context=64), tokenizer


def letters(prompts, responses) -> list[float]:
    """How much of a response is letters, and a little for what follows the prompt's length."""
    return [
        sum(c.isalpha() for c in text) / (1 + len(text)) + len(p) / 100
        for p, text in zip(prompts, responses, strict=True)
    ]


def lm_config(method="grpo", training=None, **changes) -> OnlineConfig:
    given = {"iterations": 4, "prompts": 3, "samples": 3, "max_new_tokens": 7, "beta": 0.05}
    steps = {"learning_rate": 1e-2, "checkpoint_every": 2} | (training or {})
    return OnlineConfig(method=method, training=settings(**steps), **given | changes)


CLIPPING = {"epochs": 2, "minibatches": 2}
METHODS = {
    "reinforce": {},
    "remax": {},
    "rloo": {},
    "grpo": CLIPPING,
    "dr_grpo": {"kl": "penalty"},
    "dapo": {"beta": 0.0},
    "ppo": CLIPPING | {"temperature": 0.7},
}


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def same(rows, others) -> bool:
    timed = {"tokens_per_second"}
    drop = [[{k: v for k, v in r.items() if k not in timed} for r in x] for x in (rows, others)]
    return drop[0] == drop[1]


@pytest.mark.parametrize("method", METHODS)
def test_killed_anywhere_a_run_goes_on_to_the_same_numbers(method, start, tmp_path):
    config = lm_config(method, **METHODS[method])
    whole = train_online(*start, PROMPTS, letters, config, seed=1)
    assert len(whole.history) == 4 and whole.stopped is None
    assert all(math.isfinite(x) for row in whole.history for x in row.values())
    asked = []

    def dying(prompts, responses):
        asked.append(1)
        if len(asked) in (2, 4, 6):  # in the second iteration, or the third, or the fourth ...
            raise KeyboardInterrupt
        return letters(prompts, responses)

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train_online(*start, PROMPTS, dying, config, seed=1, out=tmp_path)
    again = train_online(*start, PROMPTS, letters, config, seed=1, out=tmp_path)
    assert same(again.history, whole.history)
    assert torch.equal(weights(again.policy), weights(whole.policy))
    read = train_online(*start, PROMPTS, letters, config, seed=1, out=tmp_path)  # it was finished
    assert same(read.history, whole.history)
    assert torch.equal(weights(read.policy), weights(whole.policy))


def test_another_run_in_the_folder_is_refused(start, tmp_path):
    config = lm_config(iterations=2)
    train_online(*start, PROMPTS, letters, config, out=tmp_path)
    for changed, seed in ((replace(config, beta=0.06), 0), (config, 1)):
        with pytest.raises(ResumeMismatchError):
            train_online(*start, PROMPTS, letters, changed, seed=seed, out=tmp_path)
    with pytest.raises(ResumeMismatchError, match="examples"):
        train_online(*start, PROMPTS[:-1], letters, config, out=tmp_path)


@pytest.mark.parametrize("method", ["rloo", "grpo", "dapo", "ppo"])
def test_micro_batches_change_nothing(method, start):
    model, tokenizer = copy.deepcopy(start[0]).double(), start[1]
    found = []
    for max_tokens in (8192, 40, 1):
        config = lm_config(method, {"max_tokens": max_tokens}, iterations=2, **METHODS[method])
        result = train_online(model, tokenizer, PROMPTS, letters, config)
        found.append(weights(result.policy))
    torch.testing.assert_close(found[1], found[0], atol=1e-10, rtol=0)
    torch.testing.assert_close(found[2], found[0], atol=1e-10, rtol=0)


def test_each_pass_takes_every_group_once_in_an_order_of_its_own(start, monkeypatch):
    usual, seen = online.step, []

    def spy(learner, groups, tokens):
        seen.append([tuple(prompt) for prompt, _ in groups])
        return usual(learner, groups, tokens)

    monkeypatch.setattr(online, "step", spy)
    config = lm_config(prompts=6, samples=2, iterations=3, epochs=2, minibatches=2)
    train_online(*start, PROMPTS, letters, config)
    passes = [tuple(seen[k] + seen[k + 1]) for k in range(0, len(seen), 2)]
    assert len(seen) == 12 and all(len(set(one)) == 6 for one in passes)
    assert len(set(passes)) == 6  # over epochs and iterations


def test_the_model_stays_as_it_is_and_the_rows_say_what_happened(start):
    model, tokenizer = start
    before, seen = weights(model).clone(), []
    result = train_online(
        model,
        tokenizer,
        PROMPTS,
        letters,
        lm_config("ppo", {"evaluate_every": 2}),
        gold=lambda p, y: [len(text) for text in y],
        evaluate=lambda policy: seen.append(policy.training) or {"held_out": 1.0},
    )
    assert torch.equal(weights(model), before) and not torch.equal(weights(result.policy), before)
    assert seen == [False, False] and not result.policy.training
    names = {"iteration", "reward", "reward_std", "gold", "kl", "entropy", "length", "ended"}
    names |= {"constant_groups", "clip_fraction", "loss", "grad_norm", "learning_rate"}
    names |= {"tokens_per_second", "value_loss", "explained_variance"}
    assert names == set(result.history[0]) and set(result.history[1]) == names | {"held_out"}
    assert result.column("iteration").tolist() == [1, 2, 3, 4]
    assert abs(result.column("kl")[0]) < 1e-5 < 1e-3 < abs(result.column("kl")[-1])
    assert np.isnan(result.column("held_out")[0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_fresh_samples_have_ratio_one_at_any_temperature(start, temperature):
    config = lm_config("grpo", iterations=2, beta=0.0, temperature=temperature)
    result = train_online(*start, PROMPTS, letters, config)
    assert np.abs(result.column("loss")).max() < 1e-5  # the ratios are 1, the advantages sum to 0
    assert result.column("clip_fraction").max() == 0
    assert abs(result.column("kl")[0]) < 1e-5  # the reference is read at that temperature, too


def test_a_sampler_that_forgets_the_temperature_is_caught(start):
    def forgetful(model, prompts, n, *, temperature, **options):
        return sample(model, prompts, n, **options)

    with pytest.raises(SamplingError, match="temperature"):
        train_online(*start, PROMPTS, letters, lm_config(temperature=0.3), sampler=forgetful)


def test_dapo_draws_again_and_drops_what_teaches_nothing(start):
    def coarse(prompts, responses):
        return [float("e" in text) for text in responses]

    config = lm_config("dapo", prompts=4, samples=2, beta=0.0, overlong=0, redraws=3)
    result = train_online(*start, PROMPTS, coarse, config)
    drawn = result.column("drawn_groups")
    assert (drawn >= 4).all() and drawn.max() > 4
    assert (drawn <= 4 * 4).all() and np.isfinite(result.column("loss")).all()


def test_dapo_fines_long_responses():
    config = OnlineConfig("dapo", max_new_tokens=10).settled()
    assert config.overlong == 2 and config.clip_high == 0.28
    fined = online.shaped(config, torch.zeros(1, 2), torch.tensor([8, 9]))
    assert fined.tolist() == [[0.0, -0.5]]
    plain = OnlineConfig("grpo", max_new_tokens=10).settled()
    assert online.shaped(plain, torch.zeros(1, 2), torch.tensor([8, 9])).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("method", ["rloo", "grpo", "dapo"])
@pytest.mark.filterwarnings("ignore:in the last 5 iterations less than half")
def test_a_constant_reward_moves_nothing_and_is_named(method, start):
    config = lm_config(method, iterations=6, beta=0.0, overlong=0)
    with pytest.warns(ConstantRewardWarning, match="nothing to prefer") as caught:
        result = train_online(*start, PROMPTS, lambda p, y: [0.1] * len(y), config)
    kinds = [warning.category for warning in caught]
    assert kinds.count(ConstantRewardWarning) == 1  # once a spell
    assert torch.equal(weights(result.policy), weights(start[0]))
    groups = result.column("drawn_groups") if method == "dapo" else 3
    assert (result.column("constant_groups") == groups).all()
    assert all(math.isfinite(x) for row in result.history for x in row.values())


def test_a_policy_that_never_ends_is_named_and_its_samples_count(start):
    config = lm_config(iterations=6, max_new_tokens=3)
    with pytest.warns(EndlessResponsesWarning, match="max_new_tokens"):
        result = train_online(*start, PROMPTS, letters, config)
    assert result.stopped is None and len(result.history) == 6


@pytest.mark.parametrize(
    "reward, named",
    [
        (lambda p, y: 1 / 0, "ZeroDivisionError"),
        (lambda p, y: [math.nan] * len(y), "nan"),
        (lambda p, y: [0.0], "one number a response"),
    ],
)
def test_a_broken_reward_is_named(start, reward, named):
    with pytest.raises(RewardError, match=named):
        train_online(*start, PROMPTS, reward, lm_config())


def test_an_explosion_of_kl_stops_the_run_at_the_last_good_policy(start, tmp_path):
    config = lm_config("rloo", {"learning_rate": 0.3, "checkpoint_every": 1}, iterations=20)
    config = replace(config, beta=0.0, max_kl=2.0)
    result = train_online(*start, PROMPTS, letters, config, out=tmp_path)
    rows = result.history
    assert "max_kl" in result.stopped and 1 < len(rows) < 20
    assert rows[-1]["kl"] > 2.0 and max(row["kl"] for row in rows[:-1]) <= 2.0
    # The policy that is kept drew the samples of the row before the last.
    kept = replace(config, iterations=len(rows) - 2) if len(rows) > 2 else None
    wanted = train_online(*start, PROMPTS, letters, kept).policy if kept else start[0]
    assert torch.equal(weights(result.policy), weights(wanted))
    again = train_online(*start, PROMPTS, letters, config, out=tmp_path)
    assert again.stopped == result.stopped and same(again.history, rows)
    assert torch.equal(weights(again.policy), weights(result.policy))


def test_a_gradient_that_is_not_finite_stops_the_run(start):
    def sometimes_huge(prompts, responses):
        asked.append(1)
        return [1e300 * (len(asked) > 2) * i for i in range(len(responses))]

    asked = []
    result = train_online(*start, PROMPTS, sometimes_huge, lm_config("rloo"))
    assert "iteration 3" in result.stopped and "huge" in result.stopped
    assert torch.isfinite(weights(result.policy)).all() and len(result.history) == 2


def test_a_stopping_rule_ends_the_run_and_a_resume_asks_it_again(start, tmp_path):
    seen = []

    def rule(rows):
        seen.extend(rows)
        return "enough" if len(rows) >= 3 else None

    options = {"stop": rule, "gold": letters, "out": tmp_path}
    config = lm_config(iterations=5)
    result = train_online(*start, PROMPTS, letters, config, **options)
    assert result.stopped == "enough" and len(result.history) == 3
    assert "gold" in result.history[0] and not any("gold" in row for row in seen)
    again = train_online(*start, PROMPTS, letters, config, **options)
    assert again.stopped == "enough" and same(again.history, result.history)


# Two processes ------------------------------------------------------------------------------------

RANKS = """
import json, os, sys
import torch
sys.path.insert(0, {tests!r})
import test_posttraining_online as t
from irlbook.lm import models
from irlbook.lm.tokenization import train_tokenizer
from irlbook.posttraining.rollouts import CopySampler
from torch.distributed.tensor import DTensor
tokenizer = train_tokenizer(t.PROMPTS, 300)
model = models.tiny_lm(tokenizer, hidden=16, layers=1, heads=2, context=64).double()
gathered = []
whole = DTensor.full_tensor
DTensor.full_tensor = lambda part: gathered.append(part) or whole(part)

class Counting(CopySampler):
    def __call__(self, *arguments, **options):
        gathered.clear()
        drawn = super().__call__(*arguments, **options)
        assert len(gathered) == len(list(model.parameters())), "each weight, and it once"
        return drawn

found = []
for method, shard in {runs}:
    config = t.lm_config(method, dict(max_tokens=60, shard=shard, checkpoint_every=1),
                         iterations=2, **t.METHODS[method])
    sampler = Counting(t.copy.deepcopy(model)) if shard else None
    out = sys.argv[2] + method if shard else None
    result = t.train_online(model, tokenizer, t.PROMPTS, t.letters, config,
                            sampler=sampler, out=out)
    found.append([t.weights(result.policy).tolist(), result.history])
import torch.distributed as dist
assert dist.get_world_size() == 2 and dist.get_backend() == "gloo"
dist.destroy_process_group()
with open(sys.argv[1] + "." + os.environ["RANK"], "w") as file:
    json.dump(found, file)
"""
RUNS = [("rloo", False), ("ppo", False), ("grpo", True), ("ppo", True), ("remax", True)]


def test_two_processes_give_the_numbers_of_one(start, tmp_path):
    """With whole weights each (DDP), and with the weights split (FSDP); resumed by one process."""
    script = tmp_path / "ranks.py"
    script.write_text(RANKS.format(tests=str(Path(__file__).parent), runs=RUNS))
    run_two(script, tmp_path / "found", tmp_path / "run")
    together = [json.loads((tmp_path / f"found.{rank}").read_text()) for rank in (0, 1)]
    model = copy.deepcopy(start[0]).double()
    for k, (method, shard) in enumerate(RUNS):
        config = lm_config(method, {"max_tokens": 60}, iterations=2, **METHODS[method])
        alone = train_online(model, start[1], PROMPTS, letters, config)
        for found in together:
            found_weights = torch.tensor(found[k][0], dtype=torch.float64)
            torch.testing.assert_close(found_weights, weights(alone.policy), atol=1e-9, rtol=0)
            for row, other in zip(found[k][1], alone.history, strict=True):
                for name in set(row) - {"tokens_per_second"}:
                    assert row[name] == pytest.approx(other[name], abs=1e-8)
        if shard:
            out = tmp_path / f"run{method}"
            shutil.rmtree(out / "checkpoints" / "step-00000002")
            resumed = train_online(model, start[1], PROMPTS, letters, config, out=out)
            assert resumed.resumed == 1
            torch.testing.assert_close(
                weights(resumed.policy), weights(alone.policy), atol=1e-9, rtol=0
            )


def test_weights_of_one_process_are_not_split(start):
    with pytest.raises(InvalidHyperparameterError, match="torchrun"):
        train_online(*start, PROMPTS, letters, lm_config(training={"shard": True}))


def test_no_warning_in_a_healthy_run(start):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_online(*start, PROMPTS, letters, lm_config(iterations=2))
