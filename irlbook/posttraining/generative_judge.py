"""A generative reward model of preferences: the language model itself is asked which is better.

A question holds the prompt and both responses, and the model answers with one token, A or B. No
head is added: it is trained by next-token prediction on the labels, and its preference is the
probability of A among the two answers. There is no reward of a single response.

The answer depends on the order in which the two stand. Asked in both orders, the judge says

    z_1 = logit P(A | y1, y2),    z_2 = logit P(A | y2, y1).

A judge without position bias has z_2 = -z_1. `both_orders` joins the two answers so that no bias
that is the same for both orders is left.

Sources: Mahan et al. 2024 (2410.12832), the judge without a chain of thought; Zhang et al. 2024
(2408.15240), the verifier of single solutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from irlbook.data.records import Preference
from irlbook.errors import InvalidHyperparameterError, ShapeError, TokenizerError
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.tokenization import encode_prompt, encode_response
from irlbook.lm.trees import Group
from irlbook.training.config import StepConfig
from irlbook.training.loop import score

__all__ = [
    "ANSWERS",
    "JoinOrders",
    "answer_log_odds",
    "both_orders",
    "judge_examples",
    "judge_log_odds",
    "judge_question",
]

ANSWERS = ("A", "B")
JoinOrders = Literal["log-odds", "probability"]


def judge_question(prompt: str, first: str, second: str) -> str:
    """The text that is put to the judge, the first response as A and the second as B."""
    return f"{prompt}\nA: {first}\nB: {second}\nBetter:"


def answer_log_odds(logps: Tensor) -> Tensor:
    """(...) logit of the probability of A among the two answers, from (..., 2) log-probabilities.

    What the model would put on other tokens is left out: P(A) / (P(A) + P(B)), as a verifier's
    score is renormalised over yes and no.
    """
    if not logps.ndim or logps.shape[-1] != 2:
        raise ShapeError(f"logps have shape {tuple(logps.shape)}; expected (..., 2), A and B.")
    return logps[..., 0] - logps[..., 1]


def both_orders(log_odds: Tensor, how: JoinOrders = "log-odds") -> Tensor:
    """(...) logit of P(y1 beats y2) from (..., 2) log-odds of A when y1 stands first, and second.

    With either way the chances of y1 and of y2 add up to 1, whatever the judge does. Where a bias b
    is the same for every pair, z_1 = d + b and z_2 = -d + b, and

    - `log-odds`, (z_1 - z_2) / 2, is d: the bias is gone;
    - `probability`, the logit of [s(z_1) + s(-z_2)] / 2, has the sign of d and is nearer to 0.

    Args:
        log_odds: column 0 the question (y1, y2), column 1 the question (y2, y1).
    """
    if not log_odds.ndim or log_odds.shape[-1] != 2:
        raise ShapeError(f"log_odds have shape {tuple(log_odds.shape)}; expected (..., 2).")
    if how not in get_args(JoinOrders):
        raise InvalidHyperparameterError(
            f"how is {how!r}; choose from {', '.join(get_args(JoinOrders))}."
        )
    first, second = log_odds[..., 0], -log_odds[..., 1]  # both in favour of y1
    if how == "log-odds":
        return (first + second) / 2
    wins = torch.sigmoid(first) + torch.sigmoid(second)
    losses = torch.sigmoid(-first) + torch.sigmoid(-second)
    return wins.log() - losses.log()


def judge_examples(tokenizer: Any, records: Sequence[Preference]) -> list[Group]:
    """Each pair in both orders, answered by its label: (2P) groups of one response, for SFT."""
    answers = _answers(tokenizer)
    asked = _questions(tokenizer, records)
    return [(question, [answers[order]]) for both in asked for order, question in enumerate(both)]


def judge_log_odds(
    model: nn.Module,
    tokenizer: Any,
    records: Sequence[Preference],
    config: StepConfig | None = None,
    pad_id: int = 0,
) -> Tensor:
    """(P, 2) log-odds of A of a causal model: with the chosen response first, and second."""
    answers = _answers(tokenizer)
    groups = [(q, list(answers)) for both in _questions(tokenizer, records) for q in both]
    logps = score(ResponseScorer(model), groups, 2, config, pad_id)
    return answer_log_odds(logps.double()).view(len(records), 2)


def _questions(tokenizer: Any, records: Sequence[Preference]) -> list[list[list[int]]]:
    """(P) pairs of questions: the chosen response as A, and as B."""
    return [
        [
            encode_prompt(tokenizer, judge_question(str(p.prompt), first, second))
            for first, second in ((p.chosen, p.rejected), (p.rejected, p.chosen))
        ]
        for p in records
    ]


def _answers(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The two answers as one token each, which is all that is read of the judge."""
    found = [encode_response(tokenizer, answer, ended=False) for answer in ANSWERS]
    if any(len(ids) != 1 for ids in found):
        raise TokenizerError(
            f"the answers {ANSWERS} are not one token each: {found}. Take or train a tokenizer "
            "that has each of them as a token."
        )
    return found[0], found[1]
