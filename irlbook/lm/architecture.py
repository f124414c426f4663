"""What a model's architecture allows, found by trying it: packed trees, plain rows, or neither.

A packed tree (:mod:`irlbook.lm.trees`) is right as long as a mask and positions are all that mixes
tokens. Recurrent layers, convolutions, windows and biases by distance break that, and most of them
without an error. No list of names knows next year's models; so each model is asked once for each
size of batch (sizes double): two groups in one packed batch, as deep and as wide as the batch at
hand, against each response alone. Where they differ, plain rows (:mod:`irlbook.lm.plain`) are
computed instead; where these are wrong as well, the model is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from irlbook.errors import PlainRowsWarning, UnsupportedModelError
from irlbook.lm.trees import Group, Tree, collate

__all__ = [
    "CACHE",
    "Findings",
    "HEAD",
    "MASKLESS",
    "MIXES",
    "SAME",
    "SMALLEST",
    "SURE",
    "alike",
    "check_plain",
    "context_of",
    "decoder_of",
    "evaluating",
    "findings",
    "head",
    "name_of",
    "packs",
    "plain_head",
    "take_plain",
    "trial",
    "trial_rows",
    "trial_size",
]

SMALLEST = 32  # tokens of the shallowest trial
SAME = {torch.float64: 1e-4, torch.float32: 1e-4}
"""Two hidden states are one if they differ by so much of their length (in float64 as in float32,
in which many models compute their norms whatever the weights are). Rounding makes 1e-5 in thirty
layers; the smallest leak of a random model with recurrent layers was 3e-4."""
SURE = 0.001
"""A model is refused for no less."""
COARSE, LEAK = 0.2, 0.001
"""In a coarse type that hides a small leak; so there one response is changed, and no other may."""

MIXES = "mixes tokens by more than a mask and positions, or looks back less far than this batch"
MASKLESS = "runs an attention without masks of its own (attn_implementation='sdpa' has them)"
HEAD = "has logits that are more than a head on its last hidden states"
CACHE = "does not keep a cache that unequal prompts can share"


@dataclass
class Findings:
    """What was found out about one model; it is kept on the model, and copied with it.

    Attributes:
        packed: (way, attention, depth, width) of each trial of a packed batch, and how it ended.
        cached: (attention, depth) of each trial of the sampler's cache.
        own_head: whether logits are something else than :func:`head` of the last hidden states.
        plain: whether plain rows were tried, and are right.
        warned: whether it was said that this model takes the slow way.
    """

    packed: dict[tuple[str, str, int, int], bool] = field(default_factory=dict)
    cached: dict[tuple[str, int], bool] = field(default_factory=dict)
    own_head: bool | None = None
    plain: bool = False
    warned: bool = False


def findings(model: nn.Module) -> Findings:
    """Those of this object. (A wrapper such as peft's has its own: it may change what is right.)"""
    return model.__dict__.setdefault("_irlbook_findings", Findings())


def decoder_of(model: Any) -> Any:
    """The model without its head.

    Raises:
        UnsupportedModelError: it has none that can be told.
    """
    decoder = model.get_decoder()
    if decoder is None and model.base_model is not model:  # transformers 4.56: a Llama names none
        decoder = model.base_model
    if hasattr(decoder, "lm_head"):  # some models name themselves
        decoder = decoder.base_model
    if decoder is None or hasattr(decoder, "lm_head"):
        raise UnsupportedModelError(
            f"{name_of(model)} does not say which part of it comes before its head. Use a Llama, "
            "Qwen2, SmolLM or GPT-2 style model."
        )
    return decoder


def packs(model: Any, tree: Tree, way: str, compute: Callable[[Tree], Tensor]) -> bool:
    """Whether packed hidden states are right on batches as deep and as wide as this one.

    Args:
        way: a name for `compute`, under which the answer is kept.
        compute: a tree to (B * L, H).

    Raises:
        UnsupportedModelError: they are not, and plain rows are wrong too.

    Warns:
        PlainRowsWarning: they are not; once for a model.
    """
    config, found = model.config, findings(model)
    attention = str(getattr(config, "_attn_implementation", None))
    depth, width = tree.depth, tree.input_ids.shape[1]
    tried = {key[2:]: good for key, good in found.packed.items() if key[:2] == (way, attention)}
    if any(good and depth <= d and width <= w for (d, w), good in tried.items()):
        return True
    window = getattr(config, "sliding_window", None) or depth
    size = trial_size(model, depth)
    size = min(size, window) if window > depth else size
    wide = _power(max(width, 2 * size))
    good = tried.get((size, wide))
    if good is None:
        good = _pack_alike(model, size, wide, compute)
        if good is None:
            return True
        found.packed[way, attention, size, wide] = good
    if not good:
        take_plain(model, MIXES)
    return good


def plain_head(model: Any) -> bool:
    """Whether the model's logits are :func:`head` of its decoder's last hidden states."""
    found = findings(model)
    if found.own_head is None:
        found.own_head = _own_head(model)
    return found.own_head is not True


def head(model: Any, hidden: Tensor) -> Tensor:
    """(..., H) to (..., V): the head, and what some families do to the logits behind it.

    Whether a model really does so is not known from its settings: :func:`plain_head` tries it.
    """
    logits, config = model.get_output_embeddings()(hidden), model.config
    if getattr(config, "logit_scale", None) is not None:  # Cohere
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:  # Granite
        logits = logits / config.logits_scaling
    for name in ("final_logit_softcapping", "logits_soft_cap"):  # Gemma
        cap = getattr(config, name, None)
        if cap is not None:
            logits = cap * torch.tanh(logits / cap)
    return logits


def check_plain(model: Any) -> None:
    """Try plain rows once: pads behind the text, and what comes later, must change nothing.

    Raises:
        UnsupportedModelError: they do, or the model does not run on them.
    """
    found = findings(model)
    if found.plain:
        return
    # A reward model's own forward looks for pads and pools; what it is read from is the decoder.
    body = model if model.get_output_embeddings() is not None else decoder_of(model)

    def states(ids: Tensor, **options: Any) -> Tensor:
        out = body(input_ids=ids, use_cache=False, **options)
        return out.logits if hasattr(out, "logits") else out.last_hidden_state

    most = min(24, context_of(model.config) or 24)
    few = (most + 1) // 3
    row, other = _random_ids(model, [most, few])
    ids = torch.stack([row, torch.cat([other, torch.zeros_like(row[few:])])])
    try:
        with trial(model):
            alone, short = states(row[None])[0], states(other[None])[0]
            together = states(ids, attention_mask=_mask(ids, [most, few]))
            prefix = states(row[None, :few])[0]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"{name_of(model)} does not run on rows of text ({_first_line(error)}). Use a causal "
            "language model."
        ) from error
    if alone.shape[0] != most:
        raise UnsupportedModelError(
            f"{name_of(model)} reads {alone.shape[0]} tokens where it is given {most}: a prompt "
            "was learned in front. Use the base model, or an adapter of the LoRA kind."
        )
    limit = max(SURE, SAME.get(alone.dtype, COARSE))
    if not (alike(together[0], alone, limit) and alike(together[1, :few], short, limit)):
        why = "what it says of a text changes with the pads behind it"
    elif not alike(alone[:few], prefix, limit):
        why = "what it says of a token depends on the tokens that follow"
    else:
        found.plain = True
        return
    raise UnsupportedModelError(
        f"{name_of(model)} cannot be scored: {why}. Use a causal language model."
    )


def take_plain(model: Any, why: str) -> None:
    """Check that plain rows are right, and say once for a model that it takes this slow way.

    Raises:
        UnsupportedModelError: they are not.
    """
    check_plain(model)
    found = findings(model)
    if not found.warned:
        found.warned = True
        warnings.warn(
            f"{name_of(model)} {why}: its responses are computed in plain rows, which is right "
            "and slower. A Llama, Qwen2, SmolLM or GPT-2 style model is faster here.",
            PlainRowsWarning,
            stacklevel=2,
        )


def alike(a: Tensor, b: Tensor, limit: float | None = None) -> bool:
    """Whether two (..., H) agree up to rounding, or up to a share of each vector's length."""
    error = (a - b).float().norm(dim=-1)
    share = error / b.float().norm(dim=-1).clamp(min=1e-12)
    return bool(share.max() <= (limit or SAME.get(a.dtype, COARSE)))  # NaN is not alike


def name_of(model: Any) -> str:
    """The architecture, without the wrapper of an adapter."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return type(inner).__name__


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout; each module goes back to the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def trial(model: nn.Module) -> Iterator[None]:
    """No gradient, no dropout, and the precision of the weights."""
    kind = next(model.parameters()).device.type
    with torch.no_grad(), evaluating(model), torch.autocast(kind, enabled=False):
        yield


def context_of(config: Any) -> int | None:
    """Tokens that a model can read; None if it does not say."""
    length = getattr(config, "max_position_embeddings", None)
    return length if length and length > 0 else None


def trial_size(model: Any, depth: int) -> int:
    """The length of a trial that speaks for `depth` tokens: a power of 2, or the context."""
    size, context = _power(max(depth, SMALLEST)), context_of(model.config)
    return size if context is None or context < depth else min(size, context)


def trial_rows(model: Any, lengths: list[int]) -> list[list[int]]:
    """Rows of random ids, the same for every call."""
    return [row.tolist() for row in _random_ids(model, lengths)]


def _pack_alike(
    model: Any, depth: int, width: int, compute: Callable[[Tree], Tensor]
) -> bool | None:
    """Whether packed hidden states are those of each response alone, for one depth and width.

    None if that cannot be told, because the weights have diverged; the loss will say so.
    """
    prompt = max(1, depth // 4)
    most = depth - prompt
    count = max(2, (width - prompt) // most)
    lengths = [max(1, most - k % 2) for k in range(count)]  # of two kinds
    question, *answers, short, reply = trial_rows(model, [prompt, *lengths, 1, min(3, most)])
    groups: list[Group] = [(question, answers), (short, [reply])]  # the second row holds pads
    tree = collate(groups).to(next(model.parameters()).device)
    try:
        decoder = decoder_of(model)
        with trial(model):
            packed = compute(tree).view(*tree.input_ids.shape, -1)  # (2, L, H)
            for b, k in {(0, 1), (0, 2), (0, count), (1, 1)}:
                seen = (tree.branch[b] == 0) | (tree.branch[b] == k)
                ids = tree.input_ids[b, seen][None]
                alone = decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
                if not alone.isfinite().all():
                    return None
                if not alike(packed[b, seen], alone):
                    return False
            if packed.dtype not in SAME:
                first = tree.branch == 1
                moved_ids = tree.input_ids.where(~first, tree.input_ids.roll(1))
                others = replace(tree, input_ids=moved_ids)
                moved = compute(others).view_as(packed)
                same = (tree.branch == 0) | (tree.branch > 1)
                return alike(moved[same], packed[same], LEAK)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever a model raises that cannot take a mask or positions
        return False
    return True


def _own_head(model: Any) -> bool | None:
    """Whether the model's logits are not :func:`head` of its decoder's last hidden states.

    None if that cannot be told, because the weights have diverged.
    They are compared at a hundred times the states, where a cap of the logits shows as well.
    """
    ids = _random_ids(model, [min(12, context_of(model.config) or 12)])[0][None]
    try:
        matrix = model.get_output_embeddings()
        with trial(model):
            hidden = decoder_of(model)(input_ids=ids, use_cache=False).last_hidden_state
            hook = matrix.register_forward_pre_hook(lambda _, args: (100 * args[0],))
            try:
                logits = model(input_ids=ids, use_cache=False).logits
            finally:
                hook.remove()
            if not logits.isfinite().all():
                return None
            return not alike(head(model, 100 * hidden)[0], logits[0])
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever a model raises that is put together in another way
        return True


def _random_ids(model: Any, lengths: list[int]) -> list[Tensor]:
    size = model.get_input_embeddings().num_embeddings
    draw = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    return [torch.randint(size, (n,), generator=draw).to(device) for n in lengths]


def _mask(ids: Tensor, lengths: list[int]) -> Tensor:
    sizes = torch.tensor(lengths, device=ids.device)[:, None]
    return (torch.arange(ids.shape[1], device=ids.device) < sizes).long()


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
