"""Log-probabilities of responses: the one primitive on which every loss of post-training stands.

The data type is a *group*: one prompt and all responses to it (one for SFT, two for a preference,
G for best-of-n and policy gradients). A group becomes one row, a tree: the prompt is computed
once, the responses stand behind it, positions restart after the prompt, and a mask lets each token
see its prompt and its own response only.

    row        p0 p1 p2 | a0 a1 a2 | b0 b1
    position    0  1  2 |  3  4  5 |  3  4

What counts as a response is known from its *length*. No token id is ever taken for padding, so a
model whose pad token is its end token, or which has none, is scored like any other.

The language-model head, often the dearest layer of a small model, runs only where a response token
is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from irlbook.errors import ContextLengthError, ResponseError, UnsupportedModelError
from irlbook.lm import flat

Group = tuple[Sequence[int], Sequence[Sequence[int]]]
"""(prompt ids, [response ids, ...]); a response ends with the end token, if it ended."""

# Some families change the logits after the head. Going round their forward would miss that.
LOGIT_OPTIONS = {"final_logit_softcapping": None, "logit_scale": 1.0, "logits_scaling": 1.0}
MASKED_ATTENTION = ("eager", "sdpa")


@dataclass(frozen=True)
class Tree:
    """Groups collated into B rows of L tokens, with R responses of N tokens in all, in order.

    Attributes:
        input_ids: (B, L) right-padded.
        position_ids: (B, L).
        branch: (B, L) 0 in the prompt, k in the row's k-th response, -1 for a pad.
        predictor: (N,) place, in the flattened B * L, of the token that predicts each response
            token: the one before it, or the prompt's last one.
        target: (N,) the response tokens.
        lengths: (R,) tokens of each response; their sum is N.
        owner: (R,) the group of each response.
        depth: tokens of the longest prompt with one of its responses: the context that is needed.
    """

    input_ids: Tensor
    position_ids: Tensor
    branch: Tensor
    predictor: Tensor
    target: Tensor
    lengths: Tensor
    owner: Tensor
    depth: int

    @property
    def visible(self) -> Tensor:
        """(B, 1, L, L) bool; visible[b, 0, i, j] says whether token i may look at token j."""
        same = self.branch[:, :, None] == self.branch[:, None, :]  # pads are of one kind
        seen = same | (self.branch == 0)[:, None, :]
        return (seen & torch.ones_like(seen[0]).tril())[:, None]

    def to(self, device: torch.device | str) -> Tree:
        """The same tree on another device."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: part.to(device) for name, part in parts.items() if isinstance(part, Tensor)}
        return replace(self, **moved)


def collate(groups: Sequence[Group], pad_id: int = 0) -> Tree:
    """Turn groups into one batch.

    Args:
        groups: (prompt, responses) pairs.
        pad_id: fills the rows up. Which id it is does not matter: no real token sees a pad.

    Raises:
        ResponseError: an empty batch, prompt or response, named by its group.
    """
    if not len(groups):
        raise ResponseError("the batch is empty; give at least one (prompt, responses) group.")
    rows: list[list[int]] = []
    positions: list[list[int]] = []
    branches: list[list[int]] = []  # 0 in the prompt, k in the k-th response
    predictor: list[list[int]] = []  # places within the row
    target: list[int] = []
    lengths: list[int] = []
    owner: list[int] = []
    for g, (prompt, responses) in enumerate(groups):
        _check_group(g, prompt, responses)
        row, start = list(prompt), len(prompt)
        position, branch, places = list(range(start)), [0] * start, []
        for k, response in enumerate(responses, start=1):
            first, length = len(row), len(response)
            places += [start - 1, *range(first, first + length - 1)]
            row.extend(response)
            position.extend(range(start, start + length))
            branch.extend([k] * length)
            target.extend(response)
            lengths.append(length)
            owner.append(g)
        rows.append(row)
        positions.append(position)
        branches.append(branch)
        predictor.append(places)
    width = max(map(len, rows))

    def padded(lists: list[list[int]], fill: int) -> Tensor:
        return torch.tensor([part + [fill] * (width - len(part)) for part in lists])

    return Tree(
        input_ids=padded(rows, pad_id),
        position_ids=padded(positions, 0),
        branch=padded(branches, -1),
        predictor=torch.tensor([b * width + i for b, part in enumerate(predictor) for i in part]),
        target=torch.tensor(target),
        lengths=torch.tensor(lengths),
        owner=torch.tensor(owner),
        depth=1 + max(map(max, positions)),
    )


def _check_group(g: int, prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> None:
    if not len(prompt):
        raise ResponseError(
            f"group {g} has an empty prompt, so nothing predicts the first token. "
            "Put the beginning-of-text token there."
        )
    if not len(responses) or not all(len(response) for response in responses):
        raise ResponseError(
            f"group {g} has no response, or an empty one. A response that says nothing still "
            "holds the end token."
        )


def hidden_states(model: Any, tree: Tree) -> Tensor:
    """(B * L, H) last hidden states of a transformers causal model on a tree.

    On a CPU pads are left out of the computation (:mod:`irlbook.lm.flat`); theirs are zeros then.

    Raises:
        ContextLengthError: a prompt with its response is longer than the model's context.
        UnsupportedModelError: an attention that takes no mask of its own, or a window narrower
            than the batch is long.
    """
    config = model.config
    check_context(config, tree.depth)
    attention = getattr(config, "_attn_implementation", None) or "sdpa"
    window = getattr(config, "sliding_window", None)
    if attention not in MASKED_ATTENTION or (window is not None and tree.depth > window):
        raise UnsupportedModelError(
            f"trees need a mask of their own; this model runs {attention!r} attention with window "
            f"{window}, and the batch is {tree.depth} tokens deep. Load it with "
            "attn_implementation='sdpa' and keep prompt and response within the window."
        )
    decoder = model.get_decoder()
    if hasattr(decoder, "lm_head"):  # before transformers 5, some models name themselves
        decoder = decoder.base_model
    if flat.applies(decoder, tree):
        return flat.hidden_states(decoder, tree)
    mask = tree.visible
    if attention == "eager":  # it adds the mask to the scores; sdpa takes it as it is
        dtype = next(model.parameters()).dtype
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
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and depth > context:
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
    check_plain_head(model.config)
    return model.get_output_embeddings()(hidden_states(model, tree)[tree.predictor])


def check_plain_head(config: Any) -> None:
    """Refuse a model that changes its logits after the head.

    Raises:
        UnsupportedModelError: names the option.
    """
    for option, neutral in LOGIT_OPTIONS.items():
        if getattr(config, option, neutral) not in (None, neutral):
            raise UnsupportedModelError(
                f"the model changes its logits after the head ({option}="
                f"{getattr(config, option)}), which this code goes round. "
                "Use a Llama, Qwen2, SmolLM or GPT-2 style model."
            )


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities at a temperature, never below float32.

    In bfloat16 a log-softmax errs by nats over a sequence, even if the logits are good.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.log_softmax(logits / temperature, dim=-1)


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
    predictor, target = [], []
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
