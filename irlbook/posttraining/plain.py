"""RLOO, GRPO, PPO and DPO from top to bottom, in plain PyTorch: what to read first.

Each method is one function that anybody can step through: it draws, scores, computes a loss and
takes a step. Rows are computed one at a time, so nothing is padded, packed, cached or sharded; that
makes it slow and easy. :mod:`irlbook.posttraining.online` and :mod:`irlbook.posttraining.dpo` do
the same on batches, in micro-batches, on several processes, and with a checkpoint; the tests hold
both to the same numbers.

A *policy* is a causal language model of transformers, without dropout. Prompts and responses are
lists of token ids; a response holds its end token, if it ended. `reward(prompt, response)` gives a
number. Letters: k responses to a prompt, T tokens of one response, N tokens of all, V words.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

Ids = list[int]
Reward = Callable[[Ids, Ids], float]

__all__ = ["Ids", "Reward", "dpo", "draw", "grpo", "ppo", "rloo", "token_logps"]


@torch.no_grad()
def draw(
    policy: Any, prompt: Ids, k: int, end: int, most: int, generator: torch.Generator
) -> list[Ids]:
    """k responses of at most `most` tokens, each token drawn from the policy's own distribution."""
    rows = torch.tensor([prompt] * k)  # (k, length so far)
    for _ in range(most):
        logits = policy(input_ids=rows).logits[:, -1]  # (k, V)
        token = torch.multinomial(logits.softmax(-1), 1, generator=generator)  # (k, 1)
        rows = torch.cat([rows, token], dim=1)
    answers = rows[:, len(prompt) :].tolist()
    return [y[: y.index(end) + 1] if end in y else y for y in answers]


def token_logps(policy: Any, prompt: Ids, response: Ids) -> Tensor:
    """(T,) log pi(y_t | x, y_<t): the logits *before* a token predict it."""
    logits = policy(input_ids=torch.tensor([prompt + response])).logits[0]  # (length, V)
    logps = logits[len(prompt) - 1 : -1].log_softmax(-1)  # (T, V)
    return logps.gather(1, torch.tensor(response)[:, None])[:, 0]


def _frozen(policy: Any) -> Any:
    return copy.deepcopy(policy).eval().requires_grad_(False)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """One step down the gradient, which is cut to length 1."""
    optimizer.zero_grad()
    loss.backward()
    for group in optimizer.param_groups:  # the policy's parameters, and PPO's value head apart
        nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()
    return float(loss.detach())


def rloo(
    policy: Any,
    prompts: Sequence[Ids],
    reward: Reward,
    *,
    steps: int,
    end: int,
    generator: torch.Generator,
    k: int = 4,
    beta: float = 0.1,
    most: int = 80,
    learning_rate: float = 3e-4,
) -> list[float]:
    """REINFORCE, leaving one out: a response is compared with the *other* k - 1 to its prompt.

    Changes the policy; gives the mean reward of each step's samples.

    Source: Ahmadian et al. 2024 (2402.14740), equation 7 for k samples.
    """
    reference = _frozen(policy)
    optimizer = torch.optim.AdamW(policy.parameters(), learning_rate, weight_decay=0.0)
    history = []
    for _ in range(steps):
        losses, rewards = [], []
        for x in prompts:
            answers = draw(policy, x, k, end, most, generator)
            r = torch.tensor([reward(x, y) for y in answers], dtype=torch.float64)  # (k,)
            logps = torch.stack([token_logps(policy, x, y).sum() for y in answers])  # (k,)
            base = torch.stack([token_logps(reference, x, y).sum() for y in answers])  # (k,)
            # The price of leaving the start is taken off the reward, as a number (k1).
            net = r - beta * (logps - base).detach()  # (k,)
            others = (net.sum() - net) / (k - 1)  # (k,) a baseline that does not know the response
            losses.append(-(net - others) * logps)  # (k,)
            rewards.append(r)
        _step(optimizer, torch.cat(losses).mean())
        history.append(float(torch.cat(rewards).mean()))
    return history


def grpo(
    policy: Any,
    prompts: Sequence[Ids],
    reward: Reward,
    *,
    steps: int,
    end: int,
    generator: torch.Generator,
    k: int = 4,
    beta: float = 0.1,
    clip: float = 0.2,
    epochs: int = 2,
    most: int = 80,
    learning_rate: float = 3e-4,
) -> list[float]:
    """Group-relative policy optimisation: rewards in units of their group's spread, a clipped
    ratio, so that several steps may be taken on the same samples, and the KL in the loss.

    Changes the policy; gives the mean reward of each step's samples.

    Source: Shao et al. 2024 (2402.03300), equations 3 and 4.
    """
    reference = _frozen(policy)
    optimizer = torch.optim.AdamW(policy.parameters(), learning_rate, weight_decay=0.0)
    history = []
    for _ in range(steps):
        samples, rewards = [], []  # (prompt, response, advantage, old, base)
        for x in prompts:
            answers = draw(policy, x, k, end, most, generator)
            r = torch.tensor([reward(x, y) for y in answers], dtype=torch.float64)  # (k,)
            advantages = torch.zeros(k)  # all alike: nothing to learn, and no 0/0
            if r.max() > r.min():
                advantages = (r - r.mean()) / r.std()  # (k,)
            for y, a in zip(answers, advantages, strict=True):
                old = token_logps(policy, x, y).detach()  # (T,)
                samples.append((x, y, a, old, token_logps(reference, x, y)))
            rewards.append(r)
        for _ in range(epochs):
            losses = []
            for x, y, a, old, base in samples:
                logps = token_logps(policy, x, y)  # (T,)
                ratio = (logps - old).exp()  # (T,) 1 in the first pass
                gain = torch.minimum(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a)  # (T,)
                k3 = (base - logps).exp() - 1 - (base - logps)  # (T,)
                losses.append((-gain + beta * k3).mean())  # a long response counts as a short one
            _step(optimizer, torch.stack(losses).mean())
        history.append(float(torch.cat(rewards).mean()))
    return history


def ppo(
    policy: Any,
    prompts: Sequence[Ids],
    reward: Reward,
    *,
    steps: int,
    end: int,
    generator: torch.Generator,
    k: int = 4,
    beta: float = 0.1,
    clip: float = 0.2,
    lam: float = 0.95,
    epochs: int = 2,
    most: int = 80,
    learning_rate: float = 3e-4,
) -> list[float]:
    """Proximal policy optimisation: a value head guesses what a prefix is still going to earn, and
    each token is credited with by how much it changed the guess.

    Changes the policy; gives the mean reward of each step's samples.

    Source: Schulman et al. 2017 (1707.06347), equation 7; advantages: 1506.02438, equation 16.
    """
    reference = _frozen(policy)
    body, out = policy.get_decoder(), policy.get_output_embeddings()
    head = nn.Linear(out.in_features, 1, dtype=out.weight.dtype)  # V of a prefix
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(policy.parameters(), learning_rate, weight_decay=0.0)
    optimizer.add_param_group({"params": list(head.parameters()), "lr": 10 * learning_rate})

    def values_of(x: Ids, y: Ids) -> Tensor:
        """(T,) V before each token; its errors do not move the policy."""
        states = body(input_ids=torch.tensor([x + y])).last_hidden_state[0]  # (length, H)
        return head(states[len(x) - 1 : -1].detach())[:, 0]

    history = []
    for _ in range(steps):
        samples, rewards = [], []  # (prompt, response, advantages, old, values, targets)
        for x in prompts:
            answers = draw(policy, x, k, end, most, generator)
            for y in answers:
                r = reward(x, y)
                old, v = token_logps(policy, x, y).detach(), values_of(x, y).detach()  # (T,)
                paid = -beta * (old - token_logps(reference, x, y))  # (T,) the price of each token
                paid[-1] += r  # the reward comes with the last
                advantages, later = torch.zeros_like(v), torch.zeros(())
                for t in reversed(range(len(y))):
                    following = v[t + 1] if t + 1 < len(y) else 0.0
                    surprise = paid[t] + following - v[t]
                    later = surprise + lam * later
                    advantages[t] = later
                samples.append((x, y, advantages, old, v, advantages + v))
                rewards.append(r)
        every = torch.cat([sample[2] for sample in samples])  # (N,)
        mean, std = every.mean(), every.std(correction=0) + 1e-8
        for _ in range(epochs):
            losses = []
            for x, y, a, old, v, targets in samples:
                a = (a - mean) / std  # (T,)
                ratio = (token_logps(policy, x, y) - old).exp()  # (T,)
                gain = torch.minimum(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a)  # (T,)
                new = values_of(x, y)  # (T,)
                kept = v + (new - v).clamp(-0.2, 0.2)  # (T,) a value takes small steps, too
                error = torch.maximum((new - targets) ** 2, (kept - targets) ** 2) / 2  # (T,)
                losses.append(-gain + 0.5 * error)
            _step(optimizer, torch.cat(losses).mean())  # all tokens count alike
        history.append(sum(rewards) / len(rewards))
    return history


def dpo(
    policy: Any,
    pairs: Sequence[tuple[Ids, Ids, Ids]],
    *,
    epochs: int = 1,
    batch_size: int = 32,
    beta: float = 0.1,
    learning_rate: float = 1e-5,
) -> list[float]:
    """Direct preference optimisation on (prompt, chosen, rejected), in the order given.

    Changes the policy; gives the loss of each step: log 2 in the first.

    Source: Rafailov et al. 2023 (2305.18290), equation 7.
    """
    reference = _frozen(policy)
    optimizer = torch.optim.AdamW(policy.parameters(), learning_rate, weight_decay=0.0)
    history = []
    for _ in range(epochs):
        for first in range(0, len(pairs), batch_size):
            losses = []
            for x, *answers in pairs[first : first + batch_size]:
                logps = torch.stack([token_logps(policy, x, y).sum() for y in answers])  # (2,)
                base = torch.stack([token_logps(reference, x, y).sum() for y in answers])  # (2,)
                implicit = beta * (logps - base)  # (2,) the reward that the policy is best for
                losses.append(-logsigmoid(implicit[0] - implicit[1]))
            history.append(_step(optimizer, torch.stack(losses).mean()))
    return history
