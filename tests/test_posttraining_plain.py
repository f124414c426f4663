"""The plain versions of RLOO, GRPO, PPO and DPO end where the engine ends, to 1e-6."""

import copy
import math

import pytest
import torch

from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.models import tiny_lm
from irlbook.lm.sampling import Samples
from irlbook.posttraining import dpo, plain
from irlbook.posttraining.online import OnlineConfig, train_online
from irlbook.training import StepConfig, TrainingConfig, train

END, WORDS, MOST, K = 1, 11, 5, 3
PROMPTS = [[2, 3], [4], [5, 6, 7]]
QUIET = {
    "progress": False,
    "tensorboard": False,
    "warmup": 0.0,
    "final_learning_rate": 1.0,
    "weight_decay": 0.0,
}


class Letters:
    """As much of a tokenizer as the engine needs: a prompt is its number, a token its letter."""

    chat_template, bos_token_id, eos_token_id, pad_token_id = None, None, END, 0
    added_tokens_decoder: dict = {}

    def __call__(self, text, **_):
        from types import SimpleNamespace

        return SimpleNamespace(input_ids=list(PROMPTS[int(text)]))

    def decode(self, ids, **_):
        return " ".join(map(str, ids))


def model():
    return tiny_lm(WORDS, hidden=16, heads=2, seed=3, dtype=torch.float64).eval()


def score(prompt, response):
    """Sixteenths, which are exact in every precision."""
    return sum((7 * t + prompt[0]) % 16 for t in response) / 16


def engine_reward(prompts, responses):
    return [
        score(PROMPTS[int(x)], [int(t) for t in y.split()])
        for x, y in zip(prompts, responses, strict=True)
    ]


def plain_sampler(seed):
    """The draws of `plain.draw`, from one stream, for the engine."""
    generator = torch.Generator().manual_seed(seed)

    def sampler(policy, prompts, n, *, max_new_tokens, **_):
        groups, logps = [], []
        for x in prompts:
            answers = plain.draw(policy, list(x), n, END, max_new_tokens, generator)
            groups.append((list(x), answers))
            logps += [plain.token_logps(policy, list(x), y).detach() for y in answers]
        ended = [y[-1] == END for _, answers in groups for y in answers]
        return Samples(groups, logps, ended, 1.0)

    return sampler


def apart(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.parametrize("method", ["rloo", "grpo", "ppo"])
def test_three_steps_of_a_plain_method_are_three_iterations_of_the_engine(method):
    """Same samples, same rewards: the weights agree, although AdamW divides by the gradient."""
    start, epochs = model(), 1 if method == "rloo" else 2
    config = OnlineConfig(
        method=method,
        iterations=3,
        prompts=len(PROMPTS),
        samples=K,
        max_new_tokens=MOST,
        beta=0.1,
        epochs=epochs,
        training=StepConfig(learning_rate=0.01, **QUIET),
    )
    names = [str(i) for i in range(len(PROMPTS))]
    engine = train_online(start, Letters(), names, engine_reward, config, sampler=plain_sampler(0))
    policy = copy.deepcopy(start)
    run = getattr(plain, method)
    more = {} if method == "rloo" else {"epochs": epochs}
    rewards = run(
        policy,
        PROMPTS,
        score,
        steps=3,
        end=END,
        generator=torch.Generator().manual_seed(0),
        k=K,
        beta=0.1,
        most=MOST,
        learning_rate=0.01,
        **more,
    )
    assert rewards == pytest.approx(engine.column("reward"), abs=1e-6)
    assert apart(policy, start) > 0.01  # they did move
    assert apart(policy, engine.policy) < 1e-6


def test_plain_dpo_is_the_engine_on_the_same_pairs():
    start = model()
    draw = torch.Generator().manual_seed(1)
    pairs = [
        (x, *(torch.randint(1, WORDS, (n,), generator=draw).tolist() for n in (3, 4)))
        for x in PROMPTS
    ]
    policy, engine = copy.deepcopy(start), copy.deepcopy(start)
    losses = plain.dpo(policy, pairs, epochs=4, beta=0.2, learning_rate=0.01)
    result = train(
        ResponseScorer(engine),
        [(x, list(answers)) for x, *answers in pairs],
        dpo.objective(dpo.PreferenceConfig(beta=0.2)),
        TrainingConfig(learning_rate=0.01, epochs=4, **QUIET),
    )
    assert losses[0] == pytest.approx(math.log(2))
    assert losses == pytest.approx(result.column("loss"), abs=1e-6)
    assert apart(policy, engine) < 1e-6


def test_a_plain_draw_follows_the_policy():
    """Of 4,000 first tokens each word's share is within five standard errors of its probability."""
    policy, n = model(), 4_000
    drawn = plain.draw(policy, PROMPTS[0], n, END, 1, torch.Generator().manual_seed(5))
    shares = torch.bincount(torch.tensor([y[0] for y in drawn]), minlength=WORDS) / n
    with torch.no_grad():
        p = policy(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
    assert ((shares - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all()


def test_a_response_stops_at_its_end_token():
    drawn = plain.draw(model(), PROMPTS[1], 50, END, MOST, torch.Generator().manual_seed(6))
    assert any(len(y) < MOST for y in drawn)
    assert all(END not in y[:-1] and (y[-1] == END or len(y) == MOST) for y in drawn)
