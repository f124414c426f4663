"""Log-probabilities of one text, right, and wrong in the ways that no error message tells.

Chapter 10 plants these bugs in a model of its own, where pad, beginning and end are three tokens. A
real tokenizer may have one token for two of them, and a template that adds a message of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from irlbook.lm.logprobs import log_softmax, response_logits, token_logps
from irlbook.lm.sampling import sample
from irlbook.lm.tokenization import (
    encode_prompt,
    encode_response,
    end_id,
    pad_id,
    stop_ids,
    template_of,
)
from irlbook.lm.trees import collate

__all__ = [
    "EXCHANGES",
    "boundary_bugs",
    "end_token_bug",
    "generate_default",
    "log_softmax_in_bfloat16",
    "prompt_bugs",
    "temperature_bug",
    "tokenizer_facts",
]

EXCHANGES = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Name a colour.", "Blue."),
    ("Write a short review of a train, in one sentence.", "The train was late but comfortable."),
    ("How many legs does a spider have?", "A spider has eight legs."),
    ("Translate 'good morning' into German.", "Guten Morgen."),
    ("What do bees make?", "Bees make honey."),
    ("Give a reason to read a book.", "A book lets you see the world as someone else sees it."),
    ("Is ice cold?", "Yes, ice is cold."),
)
"""Questions with answers that nobody could object to."""


def tokenizer_facts(tokenizer: Any) -> dict[str, Any]:
    """What of a tokenizer decides whether a bug can bite."""
    template = template_of(tokenizer)
    system = False
    if template:
        asked = [{"role": "user", "content": "a"}]
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        system = "system" in str(text)
    return {
        "words": len(tokenizer),
        "bos": tokenizer.bos_token,
        "eos": tokenizer.eos_token,
        "pad": tokenizer.pad_token,
        "unk": tokenizer.unk_token,
        "pad_is_eos": tokenizer.pad_token_id == tokenizer.eos_token_id,
        "end": tokenizer.convert_ids_to_tokens(end_id(tokenizer)),
        "template": template is not None,
        "template_adds_a_system_message": system,
        "bos_before_plain_text": tokenizer("").input_ids[:1] == [tokenizer.bos_token_id],
    }


@torch.no_grad()
def _scored(
    model: Any, rows: Sequence[tuple[list[int], list[int]]], temperature: float = 1.0
) -> list[Tensor]:
    """log pi of the tokens of each (prompt, response)."""
    tree = collate([(x, [y]) for x, y in rows]).to(next(model.parameters()).device)
    return list(token_logps(model, tree, temperature).split([len(y) for _, y in rows]))


def prompt_bugs(
    model: Any, tokenizer: Any, exchanges: Sequence[tuple[str, str]] = EXCHANGES
) -> dict[str, list[float]]:
    """log pi(response, end) in nats, for each exchange, with the prompt written in several ways.

    "right": the chat template and its generation prompt. "no template": the bare text. "no
    generation prompt": the user's turn is closed and nobody's is opened. "no system message": the
    template would have added one. "begins twice": BOS in front of a text that has one.
    """
    ways: dict[str, list[tuple[list[int], list[int]]]] = {}
    for question, answer in exchanges:
        response = encode_response(tokenizer, answer)
        right = encode_prompt(tokenizer, question)
        own = {"right": right, "no template": _plain(tokenizer, question)}
        if tokenizer.bos_token_id is not None:
            own["begins twice"] = [tokenizer.bos_token_id, *right]
        if template_of(tokenizer):
            asked = [{"role": "user", "content": question}]
            text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=False)
            own["no generation prompt"] = encode_prompt(tokenizer, str(text), raw=True)
            if tokenizer_facts(tokenizer)["template_adds_a_system_message"]:
                empty = [{"role": "system", "content": ""}, *asked]
                own["empty system message"] = encode_prompt(tokenizer, empty)
        for name, prompt in own.items():
            ways.setdefault(name, []).append((prompt, response))
    return {
        name: [float(x.double().sum()) for x in _scored(model, rows)] for name, rows in ways.items()
    }


def boundary_bugs(
    model: Any, tokenizer: Any, exchanges: Sequence[tuple[str, str]] = EXCHANGES
) -> dict[str, list[float]]:
    """The same, with the response's ends written wrongly.

    "blank before": the response is glued on with a blank that the template does not write. "end
    left out": the response as a cut one, so its end is never scored.
    """
    right, blank, cut = [], [], []
    for question, answer in exchanges:
        prompt = encode_prompt(tokenizer, question)
        right.append((prompt, encode_response(tokenizer, answer)))
        blank.append((prompt, encode_response(tokenizer, " " + answer)))
        cut.append((prompt, encode_response(tokenizer, answer, ended=False)))
    found = {"right": right, "blank before": blank, "end left out": cut}
    return {k: [float(x.double().sum()) for x in _scored(model, rows)] for k, rows in found.items()}


def end_token_bug(
    model: Any, tokenizer: Any, exchanges: Sequence[tuple[str, str]] = EXCHANGES
) -> dict[str, float]:
    """What a loss sees if its mask is "every id that is not pad", in a batch of padded rows.

    Where pad is the end token, the mask takes the end out of the loss along with the padding: the
    model is never taught to stop.

    Returns:
        `ends`, `ends_in_the_loss`, and the mean log pi of a response, in nats, by either mask.
    """
    rows = [(encode_prompt(tokenizer, q), encode_response(tokenizer, a)) for q, a in exchanges]
    pad = pad_id(tokenizer)
    steps = _scored(model, rows)
    seen = ends = 0
    by_length, by_id = [], []
    for (_, response), logps in zip(rows, steps, strict=True):
        kept = torch.tensor([token != pad for token in response])
        ends += 1
        seen += bool(kept[-1])
        by_length.append(float(logps.double().sum()))
        by_id.append(float(logps.double().cpu()[kept].sum()))
    return {
        "ends": ends,
        "ends_in_the_loss": seen,
        "by_length": sum(by_length) / len(rows),
        "by_id": sum(by_id) / len(rows),
    }


def temperature_bug(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    temperature: float,
    *,
    n: int = 4,
    max_new_tokens: int = 40,
    seed: int = 0,
) -> dict[str, float]:
    """Samples at one temperature, scored at it and at 1.

    Returns:
        In nats per token: `sampler`, the mean log pi that the sampler reports; `same`, how far a
        scorer at its temperature is from it, at most; `at_one`, how far a scorer at 1 is from it,
        on average; and `ratio_bug`, nats per response of an importance ratio that should be 1.
    """
    drawn = sample(
        model,
        [encode_prompt(tokenizer, p) for p in prompts],
        n,
        max_new_tokens=max_new_tokens,
        stop_ids=stop_ids(tokenizer, model),
        seeds=seed,
        temperature=temperature,
    )
    tree = collate(drawn.groups, pad_id(tokenizer)).to(next(model.parameters()).device)
    with torch.no_grad():
        same = token_logps(model, tree, temperature).cpu()
        one = token_logps(model, tree).cpu()
    said = drawn.token_logps.cpu()
    return {
        "temperature": temperature,
        "sampler": float(said.double().mean()),
        "same": float((same - said).abs().max()),
        "at_one": float((one - said).double().mean()),
        "ratio_bug": float((one - said).double().sum() / len(drawn.ended)),
        "tokens": float(tree.lengths.double().mean()),
        "ended": sum(drawn.ended) / len(drawn.ended),
    }


@torch.no_grad()
def log_softmax_in_bfloat16(
    model: Any, tokenizer: Any, exchanges: Sequence[tuple[str, str]] = EXCHANGES
) -> dict[str, float]:
    """Error of log pi(response), in nats, if float32 logits are rounded before the log-softmax.

    Returns:
        The largest absolute error over the exchanges: `logits` rounded and the sum in float32;
        `all` in bfloat16.
    """
    rows = [(encode_prompt(tokenizer, q), [encode_response(tokenizer, a)]) for q, a in exchanges]
    tree = collate(rows).to(next(model.parameters()).device)
    logits, target = response_logits(model, tree), tree.target[:, None]
    exact = log_softmax(logits).gather(1, target)[:, 0]
    low = logits.to(torch.bfloat16)
    halves = {
        "logits": log_softmax(low).gather(1, target)[:, 0],
        "all": torch.log_softmax(low, dim=-1).gather(1, target)[:, 0].float(),
    }
    lengths = tree.lengths.tolist()
    return {
        name: max(float(part.double().sum().abs()) for part in (found - exact).split(lengths))
        for name, found in halves.items()
    }


@torch.no_grad()
def generate_default(
    model: Any, tokenizer: Any, prompts: Sequence[str], k: int = 50
) -> Mapping[str, float]:
    """Probability that the first token lies outside of the k likeliest, on average over prompts.

    `generate(do_sample=True)` draws from the 50 likeliest tokens if it is not told otherwise, so it
    never draws these, and its samples are not the policy's.
    """
    trees = [collate([(encode_prompt(tokenizer, p), [[pad_id(tokenizer)]])]) for p in prompts]
    outside = []
    for tree in trees:
        logits = response_logits(model, tree.to(next(model.parameters()).device))
        p = log_softmax(logits)[0].double().exp().sort(descending=True).values
        outside.append(float(p[k:].sum()))
    return {"k": k, "outside": sum(outside) / len(outside), "most": max(outside)}


def _plain(tokenizer: Any, text: str) -> list[int]:
    """The bare text, as a tokenizer reads any text."""
    return list(tokenizer(text).input_ids)
