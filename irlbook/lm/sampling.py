"""Sampling responses together with their log-probabilities.

The distribution is the model's own at the temperature asked for: that of ``generate`` with
``do_sample=True, top_k=0``. (Left to its defaults, ``generate`` draws from the 50 likeliest tokens
only.) A prompt is computed once for all its samples, keys and values are cached, and rows that have
ended leave the batch. A model whose cache cannot do that, which is found by trying, is sampled from
without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irlbook.errors import ResponseError, SamplingError
from irlbook.lm import architecture
from irlbook.lm.logprobs import check_context, log_softmax
from irlbook.lm.trees import Group

__all__ = [
    "Choose",
    "DROP_SHARE",
    "SPARE",
    "Samples",
    "Seed",
    "greedy",
    "inverse_cdf",
    "nucleus",
    "sample",
    "sample_by",
    "uniforms",
]

DROP_SHARE = 0.15
"""Ended rows leave the cache once they are this share of it: leaving copies the whole cache."""

SPARE = 64
"""Tokens for which the cache makes room at a time: making room copies the whole cache, too."""

Seed = int | tuple[int, ...]
"""Of one prompt: a number, or several."""

Choose = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""(logits (r, V), rows (r,), step) -> (tokens (r,), their log-probabilities (r,))"""


@dataclass(frozen=True)
class Samples:
    """R responses, n for each prompt, in the order of the prompts.

    Attributes:
        groups: (prompt, its n responses), ready for :func:`irlbook.lm.trees.collate`. A response
            holds its stop token, if it ended.
        logps: (T,) for each response: log-probabilities of its tokens under the distribution that
            they were drawn from.
        ended: for each response, whether it ended by itself; if not, it was cut at the limit.
        temperature, top_p: that distribution.
    """

    groups: list[Group]
    logps: list[Tensor]
    ended: list[bool]
    temperature: float = 1.0
    top_p: float = 1.0

    @property
    def responses(self) -> list[list[int]]:
        """The R responses."""
        return [list(response) for _, responses in self.groups for response in responses]

    @property
    def token_logps(self) -> Tensor:
        """(N,) in the order of ``token_logps(model, collate(groups), temperature)``."""
        return torch.cat(self.logps)


def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int = 1,
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    seeds: int | Sequence[Seed] | None = None,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    training: bool = False,
    max_rows: int = 256,
    compact: bool = True,
) -> Samples:
    """Draw n responses to each prompt.

    Args:
        prompts: token ids, of any lengths.
        max_new_tokens: a response is cut there, and then has not `ended`.
        stop_ids: every token that ends a response (:func:`irlbook.lm.tokenization.stop_ids`).
        seeds: one a prompt, or one for all. Response j to prompt i depends on the seed of the
            prompt (or on the one seed and i) and on j, and not on what else is in the batch.
            The same seed draws the same responses: change it from step to step.
        generator: instead of seeds, one stream for the whole batch.
        top_p: keep the likeliest tokens that make up this probability. Only to look at samples.
        training: refuse settings whose samples a loss cannot score.
        max_rows: responses computed at a time (at least those to one prompt).
        compact: drop ended rows from the batch.

    Raises:
        SamplingError: settings that make no distribution; top_p < 1 in training; NaN logits.
        ContextLengthError: a prompt and max_new_tokens exceed the model's context.
        ResponseError: an empty prompt.
    """
    if not 0 < temperature < float("inf"):
        raise SamplingError(
            f"temperature={temperature} is no distribution; it must be positive. For the likeliest "
            "token each time, call greedy(...)."
        )
    if not 0 < top_p <= 1:
        raise SamplingError(f"top_p={top_p} must lie in (0, 1].")
    if training and top_p < 1:
        raise SamplingError(
            f"top_p={top_p} in a training rollout: the loss scores all tokens, the sampler drew "
            "from some. Importance ratios would not be 1 on fresh samples, and a token outside "
            "could never be reinforced. Use top_p=1, and the temperature to sharpen."
        )
    if (seeds is None) == (generator is None):
        raise SamplingError("give either seeds (an int, or one a prompt) or a torch generator.")
    if seeds is not None:
        uniform = uniforms(seeds, len(prompts), n, max_new_tokens).to(_device(model))

    def choose(logits: Tensor, rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
        logps = log_softmax(logits, temperature)
        if top_p < 1:
            logps = nucleus(logps, top_p)
        if generator is not None:
            tokens = torch.multinomial(logps.exp(), 1, generator=generator)
        else:
            tokens = inverse_cdf(logps, uniform[rows, step])
        return tokens[:, 0], logps.gather(1, tokens)[:, 0]

    parts = _all_rows(
        model,
        prompts,
        n,
        choose,
        max_new_tokens,
        stop_ids=stop_ids,
        max_rows=max_rows,
        compact=compact,
    )
    return Samples(*parts, temperature, top_p)


def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    max_rows: int = 256,
) -> Samples:
    """The likeliest token each time; `logps` are those of the model at temperature 1."""

    def choose(logits: Tensor, rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
        logps, tokens = log_softmax(logits).max(dim=1)
        return tokens, logps

    return sample_by(
        model,
        prompts,
        1,
        choose,
        max_new_tokens=max_new_tokens,
        stop_ids=stop_ids,
        max_rows=max_rows,
    )


def sample_by(
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int,
    choose: Choose,
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    max_rows: int = 256,
) -> Samples:
    """n responses to each prompt whose tokens somebody else chooses: guided decoding, say.

    Args:
        choose: called once a token with the logits (r, V) of the rows that have not left the batch,
            and which of the len(prompts) * n rows these are. Rows that have ended may still be
            among them for a while; what is chosen there is dropped.

    Raises:
        As `sample`.
    """
    parts = _all_rows(
        model,
        prompts,
        n,
        choose,
        max_new_tokens,
        stop_ids=stop_ids,
        max_rows=max_rows,
        compact=True,
    )
    return Samples(*parts)


def inverse_cdf(logps: Tensor, uniform: Tensor) -> Tensor:
    """(r, 1) tokens: the first whose cumulative probability exceeds a uniform number.

    Args:
        logps: (r, V). uniform: (r,) in [0, 1), float64.
    """
    # In place: at 50,000 words each new tensor would cost as much as what is computed in it.
    cumulative = logps.to(torch.float64, copy=True).exp_().cumsum_(dim=1)
    wanted = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, wanted, right=True).clamp(max=logps.shape[1] - 1)


def nucleus(logps: Tensor, top_p: float) -> Tensor:
    """(r, V) log-probabilities within the smallest set of tokens that holds `top_p`; -inf outside.

    Source: Holtzman et al. 2020, "The curious case of neural text degeneration", eq. 2-3.
    """
    probabilities, order = logps.exp().sort(dim=1, descending=True)
    before = probabilities.cumsum(dim=1) - probabilities
    outside = torch.zeros_like(logps, dtype=torch.bool).scatter(1, order, before >= top_p)
    return logps.masked_fill(outside, -torch.inf).log_softmax(dim=1)


def uniforms(seeds: int | Sequence[Seed], n_prompts: int, n: int, steps: int) -> Tensor:
    """(n_prompts * n, steps) uniform numbers, each row from a stream of its own.

    Raises:
        SamplingError: not one seed a prompt, or a negative one.
    """
    if isinstance(seeds, int | np.integer):
        keys = [[int(seeds), i, j] for i in range(n_prompts) for j in range(n)]
    elif len(seeds) == n_prompts:
        parts = [[int(part) for part in np.atleast_1d(seed)] for seed in seeds]
        keys = [[*part, j] for part in parts for j in range(n)]
    else:
        raise SamplingError(f"{len(seeds)} seeds for {n_prompts} prompts; give one a prompt.")
    if any(key[0] < 0 for key in keys):
        raise SamplingError("seeds must not be negative.")
    return torch.from_numpy(np.array([np.random.default_rng(key).random(steps) for key in keys]))


def _all_rows(
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int,
    choose: Choose,
    max_new_tokens: int,
    *,
    stop_ids: Sequence[int],
    max_rows: int,
    compact: bool,
) -> tuple[list[Group], list[Tensor], list[bool]]:
    """Decode the prompts in batches of like length; (groups, logps, ended) in the order given."""
    if not len(prompts) or n < 1 or max_new_tokens < 1 or max_rows < 1:
        raise SamplingError(
            f"{len(prompts)} prompts, n={n}, max_new_tokens={max_new_tokens}, "
            f"max_rows={max_rows}: each must be at least 1."
        )
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise ResponseError(
                f"prompt {i} is empty, so nothing predicts the first token. "
                "Put the beginning-of-text token there."
            )
    check_context(model.config, max(map(len, prompts)) + max_new_tokens)
    device = _device(model)
    stops = torch.tensor(sorted(set(stop_ids)), dtype=torch.long, device=device)
    size, order = max(1, max_rows // n), list(range(len(prompts)))
    if len(order) > size:  # several batches: prompts of like length together
        order.sort(key=lambda i: len(prompts[i]))
    found: dict[int, tuple[list[int], Tensor, bool]] = {}
    start_with = _way(model, max(map(len, prompts)) + max_new_tokens)
    # Without dropout: a rollout must come from the policy that the loss scores.
    with torch.no_grad(), architecture.evaluating(model):
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            rows = torch.tensor([i * n + j for i in chosen for j in range(n)], device=device)

            def choose_here(
                logits: Tensor, local: Tensor, step: int, rows: Tensor = rows
            ) -> tuple[Tensor, Tensor]:
                return choose(logits, rows[local], step)

            tokens, logps, lengths, ended = _decode(
                model,
                [list(prompts[i]) for i in chosen],
                n,
                choose_here,
                max_new_tokens,
                stops,
                compact,
                start_with,
            )
            parts = zip(
                rows.tolist(), tokens.tolist(), logps, lengths.tolist(), ended.tolist(), strict=True
            )
            for row, response, values, length, over in parts:
                found[row] = (response[:length], values[:length], over)
    in_order = [found[row] for row in range(len(prompts) * n)]
    responses = [response for response, _, _ in in_order]
    groups: list[Group] = [
        (list(prompt), responses[i * n : (i + 1) * n]) for i, prompt in enumerate(prompts)
    ]
    return groups, [values for _, values, _ in in_order], [over for _, _, over in in_order]


def _decode(
    model: Any,
    prompts: list[list[int]],
    n: int,
    choose: Choose,
    max_new_tokens: int,
    stops: Tensor,
    compact: bool,
    start: type[_Cached] | type[_Plain],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One batch of R = len(prompts) * n rows: tokens, logps (R, T), lengths, ended (R,)."""
    device, total = stops.device, len(prompts) * n
    rest = start(model, prompts, n, max_new_tokens)
    logits = rest.logits  # (r, V) of the rows that have not left, in order
    tokens = torch.zeros(total, max_new_tokens, dtype=torch.long, device=device)
    logps = torch.zeros(
        tokens.shape, dtype=torch.promote_types(logits.dtype, torch.float32), device=device
    )
    lengths = torch.zeros(total, dtype=torch.long, device=device)
    ended = torch.zeros(total, dtype=torch.bool, device=device)
    rows = torch.arange(total, device=device)  # which of the R rows have not left
    for step in range(max_new_tokens):
        token, logp = choose(logits, rows, step)
        tokens[rows, step], logps[rows, step] = token, logp
        lengths[rows] += ~ended[rows]
        ended[rows] |= torch.isin(token, stops)
        live = ~ended[rows]
        n_live = int(live.sum())
        if n_live == 0 or step + 1 == max_new_tokens:
            break
        if compact and len(rows) - n_live >= DROP_SHARE * len(rows):
            keep = live.nonzero()[:, 0]
            rest.select(keep)
            rows, token = rows[keep], token[keep]
        logits = rest.step(token)
    if not torch.isfinite(logps).all():
        raise SamplingError(
            "the model's logits are not finite, so it defines no distribution. Did its training "
            "diverge? Go back to the last good checkpoint and lower the learning rate."
        )
    return tokens, logps, lengths, ended


class _Cached:
    """The rows of a batch as keys and values that are computed once, a prompt for all its samples.

    Attributes:
        logits: (R, V) that predict the first token.
    """

    def __init__(self, model: Any, prompts: list[list[int]], n: int, max_new_tokens: int) -> None:
        device, self.model = _device(model), model
        self.width = width = max(map(len, prompts))
        # Left-padded, so that all rows go on from the same column. Pads are masked out.
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=device)
        sizes = torch.tensor([len(p) for p in prompts], device=device)
        columns = torch.arange(width, device=device)
        mask = (columns >= width - sizes[:, None]).long()  # (B, W)
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = out.past_key_values
        self.logits = out.logits[:, -1].repeat_interleave(n, dim=0)
        if n > 1:
            self.cache.batch_repeat_interleave(n)
        _make_room(self.cache)
        self.padded = bool((sizes < width).any())
        mask = torch.cat([mask, mask.new_ones(len(mask), max_new_tokens)], dim=1)
        self.mask = mask.repeat_interleave(n, dim=0)  # (R, W + T)
        self.position = sizes.repeat_interleave(n)  # (R,) where the next token stands

    def select(self, keep: Tensor) -> None:
        """Let all rows but these leave."""
        self.cache.batch_select_indices(keep)
        self.mask, self.position = self.mask[keep], self.position[keep]

    def step(self, token: Tensor) -> Tensor:
        """(r, V) logits behind one more token (r,) in each row."""
        self.width += 1
        out = self.model(
            input_ids=token[:, None],
            attention_mask=self.mask[:, : self.width] if self.padded else None,
            position_ids=self.position[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.position = self.position + 1
        return out.logits[:, -1]


def _make_room(cache: Any) -> None:
    """Let a cache of transformers write each further token behind the others, in place.

    By itself it copies all keys and values for each token. Layers of other kinds stay as they are.
    """
    from transformers.cache_utils import DynamicLayer

    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.get_seq_length():
            cache.layers[i] = roomy = _roomy_layer()()
            vars(roomy).update(vars(layer))


@cache
def _roomy_layer() -> Any:
    """The class of such a layer; transformers is dear to import, so late."""
    from transformers.cache_utils import DynamicLayer

    class RoomyLayer(DynamicLayer):
        """`keys` and `values` are the beginning of (R, heads, places, D) with places to spare."""

        keys: Tensor
        values: Tensor
        held: tuple[Tensor, Tensor] | None = None

        def update(
            self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
        ) -> tuple[Tensor, Tensor]:
            past, more = self.keys.shape[-2], key_states.shape[-2]
            held = self.held
            if held is None or held[0].shape[-2] < past + more:
                held = _with_places(self.keys, more), _with_places(self.values, more)
            for places, new in zip(held, (key_states, value_states), strict=True):
                places[..., past : past + more, :] = new
            self._show(held, past + more)
            return self.keys, self.values

        def batch_select_indices(self, indices: Tensor) -> None:
            if self.held is None:
                super().batch_select_indices(indices)
            else:
                keys, values = self.held
                self._show((keys[indices], values[indices]), self.keys.shape[-2])

        def _show(self, held: tuple[Tensor, Tensor], count: int) -> None:
            self.held = held
            self.keys, self.values = (places[..., :count, :] for places in held)

    return RoomyLayer


def _with_places(states: Tensor, more: int) -> Tensor:
    """The states (..., L, D) at the beginning of (..., L + more + SPARE, D)."""
    *rows, past, width = states.shape
    held = states.new_empty(*rows, past + more + SPARE, width)
    held[..., :past, :] = states
    return held


class _Plain:
    """The same with nothing kept: whole rows are read again for each token."""

    def __init__(self, model: Any, prompts: list[list[int]], n: int, max_new_tokens: int) -> None:
        device, self.model = _device(model), model
        width = max(map(len, prompts)) + max_new_tokens
        ids = torch.tensor([p + [0] * (width - len(p)) for p in prompts], device=device)
        sizes = torch.tensor([len(p) for p in prompts], device=device)
        self.ids, self.sizes = ids, sizes
        self.logits = self._read().repeat_interleave(n, dim=0)
        self.ids, self.sizes = ids.repeat_interleave(n, dim=0), sizes.repeat_interleave(n)

    def select(self, keep: Tensor) -> None:
        self.ids, self.sizes = self.ids[keep], self.sizes[keep]

    def step(self, token: Tensor) -> Tensor:
        self.ids = self.ids.scatter(1, self.sizes[:, None], token[:, None])
        self.sizes = self.sizes + 1
        return self._read()

    def _read(self) -> Tensor:
        ids = self.ids[:, : int(self.sizes.max())]
        mask = (torch.arange(ids.shape[1], device=ids.device) < self.sizes[:, None]).long()
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits[torch.arange(len(ids), device=ids.device), self.sizes - 1]


def _way(model: Any, depth: int) -> type[_Cached] | type[_Plain]:
    """How a model is sampled from: with its cache, if that proves right, else without one.

    It is tried once for each depth, which doubles: two prompts of unequal lengths, two responses
    to each, of which one leaves early; against each row alone.
    """
    known = architecture.findings(model).cached
    attention = str(getattr(model.config, "_attn_implementation", None))
    size = architecture.trial_size(model, depth)
    if not any(good and at == attention and size <= d for (at, d), good in known.items()):
        good = known.get((attention, size))
        if good is None:
            good = _cache_alike(model, size)
            if good is None:
                return _Cached
            known[attention, size] = good
        if not good:
            architecture.take_plain(model, architecture.CACHE)
            return _Plain
    return _Cached


def _cache_alike(model: Any, depth: int) -> bool | None:
    """Whether the cache gives the logits of each row alone; None where these are not finite."""
    steps, n = min(4, depth // 2), 2
    prompts = architecture.trial_rows(model, [depth - steps, max(1, depth // 2 - steps)])
    stop = model.get_input_embeddings().num_embeddings - 1
    given = torch.arange(2 * n * steps, device=_device(model)).view(2 * n, steps) % stop
    given[1, 0] = stop
    seen: list[list[Tensor]] = [[] for _ in given]

    def choose(logits: Tensor, rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
        for row, values in zip(rows.tolist(), logits, strict=True):
            seen[row].append(values)
        return given[rows, step], log_softmax(logits).new_zeros(len(rows))

    try:
        with architecture.trial(model):
            _decode(model, prompts, n, choose, steps, given[1, :1], True, _Cached)
            if seen[0][0].dtype not in architecture.SAME and not _attends_only(model, prompts[1]):
                return False
            for row in (0, 2, 3):
                text = [*prompts[row // n], *given[row, :-1].tolist()]
                ids = torch.tensor([text], device=given.device)
                alone = model(input_ids=ids, use_cache=False).logits[0, -steps:]  # (4, V)
                if not alone.isfinite().all():
                    return None
                cached = torch.stack(seen[row])
                if not architecture.alike(cached - cached.mean(), alone - alone.mean()):
                    return False
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever a model raises that keeps another kind of cache, or none
        return False
    return True


def _attends_only(model: Any, prompt: list[int]) -> bool:
    """Whether all that a model keeps are keys and values: what rounding in bfloat16 could hide."""
    from transformers.cache_utils import DynamicLayer

    ids = torch.tensor([prompt[:2]], device=_device(model))
    cache = model(input_ids=ids, use_cache=True).past_key_values
    return all(isinstance(layer, DynamicLayer) for layer in cache.layers)


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device
