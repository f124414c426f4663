"""Log-probabilities of responses: the one primitive on which every loss of post-training stands.

Batches are trees (:mod:`irlbook.lm.trees`): a prompt is computed once for all its responses.

The language-model head, often the dearest layer of a small model, runs only where a response token
is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from irlbook.errors import ContextLengthError, UnsupportedModelError
from irlbook.lm import architecture, flat, plain
from irlbook.lm.trees import Group, Tree
from irlbook.lm.trees import collate as collate  # the chapters import it from here

__all__ = [
    "MASKED_ATTENTION",
    "ResponseScorer",
    "check_context",
    "head_logits",
    "hidden_states",
    "log_softmax",
    "packs",
    "padded_token_logps",
    "response_logits",
    "sequence_logps",
    "token_logps",
]

MASKED_ATTENTION = ("eager", "sdpa")


def hidden_states(model: Any, tree: Tree) -> Tensor:
    """(B * L, H) last hidden states of a transformers causal model on a tree.

    The tree is computed packed if the model's architecture allows it, which is found by trying
    (:mod:`irlbook.lm.architecture`), else as a plain row for each response. On a CPU pads are left
    out of the computation (:mod:`irlbook.lm.flat`); theirs are zeros then.

    Raises:
        ContextLengthError: a prompt with its response is longer than the model's context.
        UnsupportedModelError: neither way is right for this model.

    Warns:
        PlainRowsWarning: the model goes the slow way; once for a model.
    """
    check_context(model.config, tree.depth)
    decoder = architecture.decoder_of(model)
    way = "flat" if flat.applies(decoder, tree) else "tree"
    if packs(model, decoder, tree, way):
        return _packed(decoder, tree, way)
    return plain.hidden_states(decoder, tree)


def packs(model: Any, decoder: Any, tree: Tree, way: str) -> bool:
    """Whether a model is right on this tree in one packed batch; warns and refuses as above."""
    attention = getattr(model.config, "_attn_implementation", None) or "sdpa"
    window = getattr(model.config, "sliding_window", None)
    if attention not in MASKED_ATTENTION:
        architecture.take_plain(model, architecture.MASKLESS)
        return False
    if window is not None and tree.depth > window:
        architecture.take_plain(model, architecture.MIXES)
        return False
    return architecture.packs(model, tree, way, lambda other: _packed(decoder, other, way))


def _packed(decoder: Any, tree: Tree, way: str) -> Tensor:
    """(B * L, H) of a decoder whose tokens are mixed by a mask and positions alone."""
    if way == "flat":
        return flat.hidden_states(decoder, tree)
    mask = tree.visible
    if decoder.config._attn_implementation == "eager":  # it adds the mask; sdpa takes it as it is
        dtype = next(decoder.parameters()).dtype
        hidden_pairs, mask = ~mask, torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        mask = mask.masked_fill(hidden_pairs, torch.finfo(dtype).min)
    hidden = decoder(
        input_ids=tree.input_ids,
        position_ids=tree.position_ids,
        attention_mask=mask,
        use_cache=False,
    ).last_hidden_state  # (B, L, H)
    return hidden.flatten(0, 1)


def check_context(config: Any, depth: int) -> None:
    """Refuse a batch deeper than the model's context.

    Raises:
        ContextLengthError: names both lengths.
    """
    context = architecture.context_of(config)
    if context is not None and context < depth:
        raise ContextLengthError(
            f"prompt and response need {depth} tokens, the model's context holds {context}. "
            "Drop or shorten the long rows (and count them), or lower max_new_tokens."
        )


def response_logits(model: Any, tree: Tree) -> Tensor:
    """(N, V) logits that predict each response token, at temperature 1.

    A model may bring its own method ``response_logits(tree)``; a table of logits does
    (:class:`irlbook.lm.token_table.TokenTable`). Every transformers causal model works as it is.
    """
    if hasattr(model, "response_logits"):
        return model.response_logits(tree)
    if not architecture.plain_head(model):
        check_context(model.config, tree.depth)
        architecture.take_plain(model, architecture.HEAD)
        return plain.response_logits(model, tree)
    return architecture.head(model, hidden_states(model, tree)[tree.predictor])


def head_logits(model: Any, states: Tensor) -> Tensor:
    """(..., V) logits at temperature 1 from last hidden states (..., H).

    Raises:
        UnsupportedModelError: the model does more to its logits than is known here.
    """
    if not architecture.plain_head(model):
        raise UnsupportedModelError(
            f"{architecture.name_of(model)} {architecture.HEAD}, which a value head cannot share. "
            "Use a Llama, Qwen2, SmolLM or GPT-2 style model, or a method without values."
        )
    return architecture.head(model, states)


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities at a temperature, never below float32.

    In bfloat16 a log-softmax errs by nats over a sequence, even if the logits are good.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature != 1:  # a division of all logits is not free
        logits = logits / temperature
    return torch.log_softmax(logits, dim=-1)


def token_logps(model: Any, tree: Tree, temperature: float = 1.0) -> Tensor:
    """(N,) log pi(y_t | x, y_<t) of every response token, the end token included.

    Args:
        temperature: that of the sampler. Scoring at another one makes importance ratios wrong.
    """
    logits = response_logits(model, tree)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature != 1:  # a division of all logits is not free
        logits = logits / temperature
    return -nn.functional.cross_entropy(logits, tree.target, reduction="none")


def sequence_logps(tokens: Tensor, lengths: Tensor) -> Tensor:
    """(R,) log pi(y | x) = sum_t log pi(y_t | x, y_<t): a *sum*, whatever the length.

    Args:
        tokens: (N,) one value a response token.
        lengths: (R,) tokens of each response.
    """
    owner = torch.repeat_interleave(
        torch.arange(len(lengths), device=tokens.device), lengths, output_size=len(tokens)
    )
    return tokens.new_zeros(len(lengths)).index_add(0, owner, tokens)


class ResponseScorer(nn.Module):
    """The whole log-probability computation as one module, for wrappers such as DDP and FSDP.

    These synchronise gradients only for what runs inside the wrapped ``forward``. A loss that calls
    ``ddp.module.get_decoder()`` trains every process on its own, and no error says so.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tree: Tree, temperature: float = 1.0) -> Tensor:
        """(N,) as :func:`token_logps`."""
        return token_logps(self.model, tree, temperature)


def padded_token_logps(
    model: Any,
    groups: Sequence[Group],
    pad_id: int = 0,
    side: Literal["right", "left"] = "right",
    *,
    extra: int = 0,
    temperature: float = 1.0,
) -> Tensor:
    """(N,) as :func:`token_logps`, the plain way: a padded row for each response.

    The reference for tests and benchmarks. Left padding needs positions that start at the first
    real token; a model with learned positions (GPT-2) is wrong by a nat without them.

    Args:
        extra: pads added to every row beyond what is needed.
    """
    rows = [(list(p), list(r)) for p, responses in groups for r in responses]
    width = max(len(p) + len(r) for p, r in rows) + extra
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros_like(ids)
    predictor: list[int] = []
    target: list[int] = []
    for b, (prompt, response) in enumerate(rows):
        length = len(prompt) + len(response)
        first = 0 if side == "right" else width - length
        ids[b, first : first + length] = torch.tensor(prompt + response)
        mask[b, first : first + length] = 1
        start = b * width + first + len(prompt) - 1
        predictor += range(start, start + len(response))
        target += response
    device = next(model.parameters()).device
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    logits = model(
        input_ids=ids.to(device), attention_mask=mask.to(device), position_ids=positions.to(device)
    ).logits  # (R, L, V)
    steps = log_softmax(logits.flatten(0, 1)[predictor], temperature)
    return steps.gather(1, torch.tensor(target, device=device)[:, None])[:, 0]
