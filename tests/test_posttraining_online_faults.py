"""Silent faults of online training, each of which a test here would catch.

The oracle: a run's own gradients, seen when they are clipped, against the losses written out by
hand, a token at a time, with none of the library's functions. The policy is a table.
"""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from irlbook.errors import ResumeMismatchError, RewardError, SamplingError
from irlbook.lm.sampling import Samples
from irlbook.posttraining import online, rollouts
from irlbook.posttraining.online import OnlineConfig, train_online
from irlbook.posttraining.reward_workers import FileReward, in_processes
from irlbook.posttraining.rollouts import ask, draw_shared
from irlbook.training import StepConfig

TOKENS, END, LONGEST = 5, 0, 6
PROMPTS = ("1", "2", "3", "4")
PLAIN = StepConfig(
    learning_rate=0.05, warmup=0.0, final_learning_rate=1.0, weight_decay=0.0,
    max_grad_norm=math.inf, checkpoint_every=2, progress=False, tensorboard=False,
)  # fmt: skip


class Table(nn.Module):
    """Logits of the next token, given the last one and the prompt's first."""

    state_size = 3

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.last = nn.Parameter(torch.randn(TOKENS, TOKENS, generator=draw).double())
        self.first = nn.Parameter(torch.randn(TOKENS, TOKENS, generator=draw).double())
        self.state = nn.Parameter(torch.randn(TOKENS, 3, generator=draw).double())
        self.last.data[:, END] -= 1.5  # responses of 1 to 6 tokens

    def response_logits(self, tree):
        ids, width = tree.input_ids.flatten(), tree.input_ids.shape[1]
        first = tree.input_ids[tree.predictor // width, 0]
        return self.last[ids[tree.predictor]] + self.first[first] + 0 * self.state.sum()

    def response_states(self, tree):
        return self.state[tree.input_ids.flatten()[tree.predictor]]


class Digits:
    """A tokenizer: one digit a token; 0 ends."""

    chat_template = bos_token_id = pad_token_id = None
    eos_token_id = END

    def __call__(self, text, **_):
        return SimpleNamespace(input_ids=[int(c) for c in text])

    def decode(self, ids, **_):
        return "".join(str(i) for i in ids if i != END)


def logits_of(model, prompt, last):
    return model.last[last] + model.first[prompt[0]]


def sampler(model, prompts, n, *, max_new_tokens, stop_ids, temperature, seeds):
    groups, logps, ended = [], [], []
    for prompt, seed in zip(prompts, seeds, strict=True):
        answers = []
        for j in range(n):
            draw, last, ids, found = np.random.default_rng([seed, j]), prompt[-1], [], []
            while len(ids) < max_new_tokens and (not ids or ids[-1] not in stop_ids):
                z = logits_of(model, prompt, last).detach()
                logp = torch.log_softmax(z / (temperature or 1.0), 0)
                last = int(z.argmax()) if not temperature else int(
                    draw.choice(TOKENS, p=logp.exp().numpy() / float(logp.exp().sum()))
                )  # fmt: skip
                ids.append(last)
                found.append(logp[last])
            answers.append(ids)
            logps.append(torch.stack(found))
            ended.append(ids[-1] in stop_ids)
        groups.append((list(prompt), answers))
    return Samples(groups, logps, ended, temperature)


def reward(prompts, responses):
    """To the second prompt all responses are worth the same."""
    pairs = zip(prompts, responses, strict=True)
    return [
        (x != "2") * (y.count("1") - 0.7 * y.count("2") + 0.3 * len(y)) + 2 * int(x)
        for x, y in pairs
    ]


def config(method="rloo", **changes):
    training = replace(PLAIN, **changes.pop("training", {}))
    standard = {"iterations": 1, "prompts": 3, "samples": 4, "max_new_tokens": LONGEST}
    standard |= {"temperature": 0.7, "beta": 0.3, "redraws": 0, "overlong": 0}
    return OnlineConfig(method=method, training=training, **(standard | changes))


class Seen:
    """What a run drew, and its parameters and gradients at each of its steps."""

    def __init__(self, monkeypatch):
        self.drawn, self.steps, self.seeds = [], [], []
        original = nn.utils.clip_grad_norm_

        def clip(parameters, *args, **kwargs):
            kept = list(parameters)
            if len(kept) == 3:  # the policy's, not the value head's
                self.steps.append(
                    ([p.detach().clone() for p in kept], [p.grad.clone() for p in kept])
                )
            return original(kept, *args, **kwargs)

        monkeypatch.setattr(online.nn.utils, "clip_grad_norm_", clip)

    def sample(self, model, prompts, n, **options):
        found = sampler(model, prompts, n, **options)
        self.drawn.append(found)
        self.seeds.append(options["seeds"])
        return found


def run(settings, seen=None, model=None, **options):
    draw = seen.sample if seen else sampler
    model = model or Table()
    return train_online(
        model, Digits(), PROMPTS, options.pop("reward", reward), settings, sampler=draw, **options
    )


@pytest.fixture
def seen(monkeypatch):
    return Seen(monkeypatch)


# The oracle ---------------------------------------------------------------------------------------


def estimate(d, name):
    return {"k1": d, "k2": d**2 / 2, "k3": torch.exp(-d) - 1 + d}[name]


def tokens_of(model, groups, temperature):
    """For each group, for each response: its tokens' log-probabilities."""
    return [
        [
            torch.stack([
                torch.log_softmax(logits_of(model, x, a) / temperature, 0)[b]
                for a, b in zip([x[-1], *y[:-1]], y, strict=True)
            ])
            for y in answers
        ]
        for x, answers in groups
    ]  # fmt: skip


def advantages_by_hand(method, net, greedy):
    """(P, k), written out response by response."""
    found = torch.zeros_like(net)
    prompts, k = net.shape
    for p in range(prompts):
        equal = len(set(net[p].tolist())) == 1
        for i in range(k):
            others = torch.cat([net[p, :i], net[p, i + 1 :]])
            everyone = torch.cat([net.flatten()[: p * k + i], net.flatten()[p * k + i + 1 :]])
            found[p, i] = {
                "reinforce": lambda e=everyone, p=p, i=i: net[p, i] - e.mean(),
                "remax": lambda p=p, i=i: net[p, i] - greedy[p],
                "rloo": lambda o=others, p=p, i=i: net[p, i] - o.mean(),
                "dr_grpo": lambda p=p, i=i: net[p, i] - net[p].mean(),
                "grpo": lambda p=p, i=i: (net[p, i] - net[p].mean()) / net[p].std(),
                "dapo": lambda p=p, i=i: (net[p, i] - net[p].mean()) / net[p].std(),
            }[method]()
        if equal and method in ("grpo", "dapo"):
            found[p] = 0
    return found


def by_hand(settings, policy, drawn, greedy=None):
    """The gradient that a step on these samples should have, for any method but PPO."""
    c = settings.settled()
    model, start = Table(), Table()
    with torch.no_grad():
        for p, value in zip(model.parameters(), policy, strict=True):
            p.copy_(value)
    groups = drawn.groups
    texts = [[Digits().decode(y) for y in answers] for _, answers in groups]
    raw = torch.tensor([
        reward([str(x[0])] * len(t), t) for (x, _), t in zip(groups, texts, strict=True)
    ], dtype=torch.float64)  # fmt: skip
    logps, base = (tokens_of(m, groups, c.temperature) for m in (model, start))
    cut = iter(drawn.logps)
    old = [[next(cut).double() for _ in answers] for _, answers in groups]
    net = raw.clone()
    if c.kl == "penalty":
        for p, row in enumerate(old):
            for i, o in enumerate(row):
                net[p, i] -= c.beta * float(estimate(o - base[p][i].detach(), c.estimator).sum())
    first = None if greedy is None else torch.tensor(
        [reward([str(x[0])], [Digits().decode(y[0])])[0] for x, y in greedy.groups],
        dtype=torch.float64,
    )  # fmt: skip
    a = advantages_by_hand(c.method, net, first)
    used = range(len(groups))
    if c.method == "dapo":
        used = [p for p in used if len(set(raw[p].tolist())) > 1]
    responses = [(p, i) for p in used for i in range(len(groups[p][1]))]
    total = sum(len(groups[p][1][i]) for p, i in responses)
    loss = 0.0
    for p, i in responses:
        x, length = logps[p][i], len(groups[p][1][i])
        weight = {
            "sequence": 1 / (len(responses) * length),
            "token": 1 / total,
            "constant": 1 / (len(responses) * c.constant),
        }[c.normalisation]
        if c.method in ("reinforce", "remax", "rloo"):
            lost = -a[p, i] * x
        else:
            ratio = torch.exp(x - old[p][i])
            kept = ratio.clamp(1 - c.clip_low, 1 + c.clip_high)
            lost = -torch.minimum(ratio * a[p, i], kept * a[p, i])
        if c.kl == "loss":
            lost = lost + c.beta * estimate(x - base[p][i].detach(), c.estimator)
        loss = loss + weight * lost.sum()
    return torch.autograd.grad(loss, [model.last, model.first])


CASES = [
    *[(method, {}) for method in ("reinforce", "remax", "rloo", "grpo", "dr_grpo", "dapo")],
    ("rloo", {"kl": "loss", "estimator": "k2", "normalisation": "token"}),
    ("rloo", {"estimator": "k3", "normalisation": "sequence"}),
    ("grpo", {"kl": "penalty", "normalisation": "constant"}),
    ("dr_grpo", {"beta": 0.0, "temperature": 1.3}),
]


@pytest.mark.parametrize("max_tokens", [8192, 1])  # one micro-batch; one for each group
@pytest.mark.parametrize(("method", "changes"), CASES)
def test_every_step_has_the_gradient_written_by_hand(seen, method, changes, max_tokens):
    """Two iterations: in the second the policy has left the start, so the KL pulls."""
    settings = config(method, iterations=2, training={"max_tokens": max_tokens}, **changes)
    run(settings, seen)
    parts = 2 if method == "remax" else 1
    assert len(seen.steps) == 2 and len(seen.drawn) == 2 * parts + 1  # and the last look
    for t, (policy, gradients) in enumerate(seen.steps):
        drawn = seen.drawn[parts * t]
        greedy = seen.drawn[parts * t + 1] if parts == 2 else None
        assert drawn.temperature == settings.temperature and (parts == 1 or not greedy.temperature)
        for got, want in zip(gradients, by_hand(settings, policy, drawn, greedy), strict=False):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("method", ["grpo", "dapo"])
def test_later_steps_on_the_same_samples_are_clipped_against_the_policy_that_drew(seen, method):
    settings = config(method, epochs=4, clip_low=0.05, clip_high=0.1)
    result = run(settings, seen)
    assert len(seen.steps) == 4 and len(seen.drawn) == 2  # the samples, and the last look
    for policy, gradients in seen.steps:
        for got, want in zip(gradients, by_hand(settings, policy, seen.drawn[0]), strict=False):
            torch.testing.assert_close(got, want)
    assert 0 < result.history[0]["clip_fraction"] < 1


@pytest.mark.parametrize("max_tokens", [8192, 1])
def test_ppo_has_the_gradient_written_by_hand(seen, max_tokens):
    """With lambda 1 and a value head that starts at 0, an advantage is a return to go, whitened."""
    settings = config("ppo", iterations=2, lam=1.0, training={"max_tokens": max_tokens})
    run(settings, seen)
    (_, gradients), (_, later) = seen.steps
    drawn, model = seen.drawn[0], Table()
    logps = tokens_of(model, drawn.groups, settings.temperature)
    flat = [x for row in logps for x in row]
    rewards = [
        r for x, ys in drawn.groups for r in reward([str(x[0])] * 4, map(Digits().decode, ys))
    ]  # at the start the KL is 0
    a = torch.cat([0 * x.detach() + r for x, r in zip(flat, rewards, strict=True)])
    a = (a - a.mean()) / a.std(correction=0)
    loss = -(a * torch.cat(flat)).mean()
    wanted = torch.autograd.grad(loss, [model.last, model.first])
    for got, want in zip(gradients, wanted, strict=False):
        torch.testing.assert_close(got, want)
    assert not later[2].any()  # the value head, no longer 0, does not move the policy


def test_ppo_the_value_head_learns_though_the_policy_hardly_moves():
    settings = config("ppo", iterations=12, prompts=4, beta=0.0, lam=1.0, value_clip=9.0,
                      value_rate=3e4, training={"learning_rate": 1e-5})  # fmt: skip
    losses = run(settings).column("value_loss")
    assert losses[-3:].mean() < 0.7 * losses[:3].mean()


def test_ppo_pays_the_price_of_kl_token_by_token():
    lengths = torch.tensor([2, 3])
    penalty = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]).double()
    values, settings = torch.zeros(5).double(), config("ppo", lam=1.0, whiten=False).settled()
    rewards = torch.tensor([[1.0, 2.0]]).double()
    found, targets = online.token_advantages(settings, rewards, lengths, penalty, values)
    wanted = torch.tensor([1 - 0.3, 1 - 0.2, 2 - 1.2, 2 - 0.9, 2 - 0.5]).double()
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(targets, wanted)
    torch.testing.assert_close(penalty, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]).double())


def test_the_methods_are_as_published():
    """The place of KL, its estimator, what a long response weighs, the upper clip, the divisor."""
    found = {}
    for method in online.METHODS:
        c = OnlineConfig(method=method, max_new_tokens=50).settled()
        found[method] = (c.kl, c.estimator, c.normalisation, c.clip_high, c.constant)
    plain = ("penalty", "k1", "constant", 0.2, 1.0)
    assert found == {
        "reinforce": plain,
        "remax": plain,
        "rloo": plain,
        "grpo": ("loss", "k3", "sequence", 0.2, 50.0),
        "dr_grpo": ("loss", "k3", "constant", 0.2, 50.0),
        "dapo": ("loss", "k3", "token", 0.28, 50.0),
        "ppo": ("penalty", "k1", "token", 0.2, 50.0),
    }


def test_dapo_fines_what_comes_near_the_cut():
    rewards, lengths = torch.zeros(1, 4).double(), torch.tensor([1, 8, 9, 10])
    settings = config("dapo", max_new_tokens=10, overlong=4).settled()
    wanted = torch.tensor([[0.0, -0.5, -0.75, -1.0]]).double()
    torch.testing.assert_close(online.shaped(settings, rewards, lengths), wanted)
    assert not online.shaped(replace(settings, method="grpo"), rewards, lengths).any()


@pytest.mark.parametrize("method", ["remax", "rloo", "grpo", "dr_grpo", "dapo"])
def test_no_prompt_sees_the_rewards_of_another(method):
    draw = torch.Generator().manual_seed(0)
    rewards = torch.randn(2, 3, generator=draw).double()
    other = rewards.clone()
    other[1] += 100 * torch.randn(3, generator=draw).double()
    lengths, greedy = torch.tensor([1, 2, 3, 1, 2, 3]), torch.zeros(2).double()
    a, b = (
        online.token_advantages(
            config(method).settled(), r, lengths, torch.zeros(12).double(), greedy=greedy
        )[0]
        for r in (rewards, other)
    )
    torch.testing.assert_close(a[:6], b[:6], rtol=0, atol=0)
    assert not torch.equal(a[6:], b[6:])


# What a run reports -------------------------------------------------------------------------------


def test_the_row_holds_the_means_of_the_samples(seen):
    result = run(
        config("grpo", iterations=2, samples=3), seen, gold=lambda x, y: [len(t) for t in y]
    )
    for row, drawn, (policy, _) in zip(result.history, seen.drawn[:-1], seen.steps, strict=True):
        model = Table()
        with torch.no_grad():
            for p, value in zip(model.parameters(), policy, strict=True):
                p.copy_(value)
        new, start = (tokens_of(m, drawn.groups, 0.7) for m in (model, Table()))
        kls = [float((a - b).sum().detach()) for x, y in zip(new, start, strict=True)
               for a, b in zip(x, y, strict=True)]  # fmt: skip
        assert row["kl"] == pytest.approx(np.mean(kls), abs=1e-9)
        texts = [Digits().decode(y) for _, ys in drawn.groups for y in ys]
        asked = [str(x[0]) for x, ys in drawn.groups for _ in ys]
        assert row["reward"] == pytest.approx(np.mean(reward(asked, texts)))
        assert row["gold"] == pytest.approx(np.mean([len(t) for t in texts]))
        assert row["ended"] == pytest.approx(np.mean(drawn.ended))
        assert row["length"] == pytest.approx(np.mean([len(x) for x in drawn.logps]))
    assert result.history[0]["kl"] == pytest.approx(0, abs=1e-12) != result.history[1]["kl"]


def test_gold_is_seen_by_nobody_who_decides(tmp_path):
    """Not by the policy, and not by `stop`, also after a resume from a file."""

    def gold(prompts, responses):
        return [-7.125 for _ in responses]

    def stop(rows):
        for row in rows:
            assert not any("gold" in name for name in row) and -7.125 not in row.values()
            row.clear()  # it may not reach the history through what it was given
        return "enough" if len(rows) == limit else None

    limit = 3
    settings = config(iterations=5)
    with_gold = run(settings, gold=gold, stop=stop, out=tmp_path / "run")
    assert with_gold.stopped == "enough" and len(with_gold.history) == 3
    assert (with_gold.column("gold") == -7.125).all()
    without = run(settings, stop=stop)
    for a, b in zip(with_gold.policy.parameters(), without.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    limit = 5
    again = run(settings, gold=gold, stop=stop, out=tmp_path / "run")
    assert len(again.history) == 5 and (again.column("gold") == -7.125).all()


# Randomness, and going on -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["rloo", "ppo", "dapo"])
def test_a_run_that_was_cut_goes_on_to_the_same_numbers(tmp_path, method):
    """With two steps in two passes: the order of groups and the count of Adam go on too."""
    several = {} if method == "rloo" else {"epochs": 2, "minibatches": 2}
    settings = config(method, iterations=5, redraws=int(method == "dapo"), **several)
    whole = run(settings)

    def dies(rows):
        if len(rows) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(settings, stop=dies, out=tmp_path)
    cut = run(settings, out=tmp_path)
    for a, b in zip(whole.policy.parameters(), cut.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert [row["iteration"] for row in cut.history] == [1, 2, 3, 4, 5]
    for name in ("reward", "kl", "grad_norm", "loss"):
        np.testing.assert_allclose(cut.column(name), whole.column(name), rtol=1e-9, atol=1e-12)


def test_another_seed_or_price_is_another_run(tmp_path):
    settings = config(iterations=2)
    run(settings, out=tmp_path, seed=1)
    for other, seed in ((settings, 2), (replace(settings, beta=0.2), 1),
                        (replace(settings, method="reinforce"), 1)):  # fmt: skip
        with pytest.raises(ResumeMismatchError):
            run(other, out=tmp_path, seed=seed)
    with pytest.raises(ResumeMismatchError):
        run(settings, out=tmp_path, seed=1, model=Table(5))


def test_every_iteration_and_every_seed_draws_anew(seen):
    settings = config(iterations=2, beta=0.0, training={"learning_rate": 1e-12})
    run(settings, seen, seed=0)
    run(settings, seen, seed=0)
    run(settings, seen, seed=1)
    # each run draws twice to learn from, and once to look at its last step
    a, b, _, again, _, _, other, _, _ = [[ys for _, ys in d.groups] for d in seen.drawn]
    assert a == again and a != b and a != other
    every = [*seen.seeds[0], *seen.seeds[1], *seen.seeds[6]]
    assert len(set(every)) == len(every)  # nor do two prompts share their random numbers


def test_the_model_given_is_left_alone_and_is_the_reference():
    model = Table()
    before = copy.deepcopy(model.state_dict())
    result = run(config(iterations=3), model=model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not torch.equal(result.policy.last, model.last)
    assert all(p.requires_grad for p in model.parameters())


# Broken rewards and policies ----------------------------------------------------------------------

METHODS = list(online.METHODS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_bad_reward_in_the_second_iteration_is_named(method, bad):
    """Also one that only a few responses get, and for every method."""
    calls = []

    def breaks(prompts, responses):
        calls.append(len(responses))
        found = reward(prompts, responses)
        if len(calls) > (2 if method == "remax" else 1):
            found[-1] = bad
        return found

    with pytest.raises(RewardError, match="prompt"):
        run(config(method, iterations=3), reward=breaks)


@pytest.mark.parametrize("method", METHODS)
def test_a_reward_model_that_gives_nan_is_a_reward_error_too(method):
    """Not a policy that "broke": the remedy would be the wrong one."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, tree):
            found = tree.lengths.double() + self.weight
            found[0] = math.nan
            return found

    for samples in (4, 1) if method in ("reinforce", "remax", "ppo") else (4,):
        with pytest.raises(RewardError, match="prompt"):
            run(config(method, samples=samples), reward=Model())


def test_every_process_hears_of_a_reward_that_failed_in_the_first(monkeypatch):
    """A process that waits for numbers which never come would wait for ever."""
    sent = []
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", lambda x: sent.append(list(x)))
    drawn = sampler(Table(), [[1]], 2, max_new_tokens=3, stop_ids=[0], temperature=1.0, seeds=[0])

    def breaks(prompts, responses):
        return [1.0, math.nan]

    monkeypatch.setattr(rollouts.distributed, "ranks", lambda device: (0, 2))
    with pytest.raises(RewardError):
        rollouts.rewards_of(breaks, ["1"], drawn, Digits(), PLAIN)
    assert isinstance(sent[0][0], RewardError)
    monkeypatch.setattr(rollouts.distributed, "is_main_process", lambda: False)
    monkeypatch.setattr(
        torch.distributed, "broadcast_object_list", lambda x: x.__setitem__(0, sent[0][0])
    )
    with pytest.raises(RewardError):
        rollouts.rewards_of(None, ["1"], drawn, Digits(), PLAIN)  # it does not ask itself


def test_nan_from_one_worker_of_two_is_named(tmp_path):
    """The numbers of the workers are joined first, so the prompt named is the right one."""
    file = tmp_path / "judge.py"
    file.write_text(
        "def judge(prompts, responses):\n"
        "    return [float('nan') if y == 'bad' else len(y) for y in responses]\n"
    )
    prompts, responses = ["p0", "p1", "p2", "p3", "p4"], ["a", "bb", "", "bad", "c"]
    with in_processes(FileReward(file, "judge"), 2) as shared:
        assert ask(shared, prompts[:3], responses[:3]).tolist() == [1.0, 2.0, 0.0]
        with pytest.raises(RewardError, match="nan for the prompt 'p3' and the response 'bad'"):
            ask(shared, prompts, responses)


def test_log_probabilities_of_another_temperature_are_refused():
    """The tokens are those of the right temperature, so nothing else would show it."""

    def forgets(model, prompts, n, *, temperature, **options):
        found = sampler(model, prompts, n, temperature=temperature, **options)
        plain = [x for row in tokens_of(model, found.groups, 1.0) for x in row]
        return replace(found, logps=[x.detach() for x in plain])

    with pytest.raises(SamplingError, match="temperature"):
        train_online(Table(), Digits(), PROMPTS, reward, config(temperature=0.4), sampler=forgets)


def test_samples_shared_by_processes_are_those_of_one(monkeypatch):
    prompts, seeds, n = [[1], [2], [3], [4], [1, 2]], [5, 6, 7, 8, 9], 3
    options = {"max_new_tokens": LONGEST, "stop_ids": [0], "temperature": 0.8}
    alone = draw_shared(sampler, Table(), prompts, n, seeds=seeds, **options)
    parts = []
    for rank in range(2):
        own = sampler(Table(), prompts[rank::2], n, seeds=seeds[rank::2], **options)
        parts.append((own.groups, own.logps, own.ended))

    def gather(into, mine):
        assert mine[0] == parts[rank][0]  # it drew for its own share
        into[:] = parts

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    for rank in range(2):
        both = draw_shared(
            sampler, Table(), prompts, n, seeds=seeds, rank=rank, processes=2, **options
        )
        assert both.groups == alone.groups and both.ended == alone.ended
        torch.testing.assert_close(both.token_logps, alone.token_logps, rtol=0, atol=0)


def test_equal_rewards_move_nothing_and_are_counted():
    for method in ("rloo", "grpo", "dr_grpo", "dapo"):
        settings = config(method, beta=0.0, samples=3)  # 0.1 + 0.1 + 0.1 is not 0.3
        result = run(settings, reward=lambda x, y: [0.1] * len(y))
        assert result.history[0]["constant_groups"] == 3
        for a, b in zip(result.policy.parameters(), Table().parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_policy_that_ran_away_is_put_back(tmp_path):
    """Kept is the policy that drew the last samples which were near enough."""
    settings = config("rloo", iterations=6, beta=0.0, training={"learning_rate": 1.0})
    free = run(settings)
    limit = float(np.sort(free.column("kl"))[-1]) - 1e-9
    broke = int(np.argmax(free.column("kl") > limit))
    assert broke >= 1
    held = run(replace(settings, max_kl=limit), out=tmp_path)
    assert held.stopped and f"iteration {broke + 1}" in held.stopped
    assert len(held.history) == broke + 1
    kept = run(replace(settings, iterations=max(1, broke - 1))) if broke > 1 else None
    wanted = Table() if kept is None else kept.policy
    for a, b in zip(held.policy.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_sampler_that_stops_following_the_policy_is_named():
    """Its own log-probabilities go with its samples, so that every metric would look healthy."""
    first = []

    def stale(model, *rest, **options):
        first.append(first[0] if first else copy.deepcopy(model))
        return sampler(first[0], *rest, **options)

    settings = config("rloo", iterations=8, training={"learning_rate": 0.3})
    with pytest.raises(SamplingError, match="not drawn from the policy as it is"):
        train_online(Table(), Digits(), PROMPTS, reward, settings, sampler=stale)


def test_the_policy_of_the_last_step_is_looked_at(tmp_path):
    """No later iteration draws from it, so nothing else would see that it ran away."""
    settings = config("rloo", iterations=1, beta=0.0, max_kl=0.5, training={"learning_rate": 20.0})
    result = run(settings, out=tmp_path)
    assert "after iteration 1" in result.stopped and "max_kl" in result.stopped
    for a, b in zip(result.policy.parameters(), Table().parameters(), strict=True):
        assert torch.equal(a, b)
    assert not list((tmp_path / "checkpoints").glob("step-*"))


def test_a_stopping_rule_always_has_a_row_to_look_at():
    result = run(config("rloo", iterations=3), stop=lambda rows: f"after {rows[-1]['iteration']}")
    assert result.stopped == "after 1" and len(result.history) == 1


def test_a_fault_of_gold_is_not_called_one_of_the_reward():
    with pytest.raises(RewardError, match="gold, which is only measured: .* nan"):
        run(config("rloo", iterations=1), gold=lambda x, y: [math.nan] * len(y))
