"""Trees without padding, for the CPU.

Padded rows make every layer compute on pads, and attention score pairs of tokens that may not see
each other. Here the real tokens of all rows stand behind one another in a single row, so that
layers see nothing else, and attention runs for each row of the tree on its own. It is the same
function as on padded rows, in another order of summation.

A GPU prefers few large operations to many small ones, so there the padded rows stay.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from irlbook.lm.trees import Tree

__all__ = ["NAME", "Row", "WHOLE", "applies", "hidden_states"]

NAME = "irlbook_flat"
WHOLE = 256
"""Rows up to so many tokens attend in one masked call; in longer ones each response has its own."""

Row = tuple[list[int], Tensor | None]
"""Lengths of its pieces in tokens, and a mask or None.

With a mask there is one piece; else the prompt stands first, and then each response."""


def applies(decoder: Any, tree: Tree) -> bool:
    """Whether a model takes its attention from outside, and runs where this pays."""
    return (
        tree.input_ids.device.type == "cpu"
        and getattr(decoder.config, "_attn_implementation", None) == "sdpa"
        and getattr(decoder, "_supports_attention_backend", False)
        # Checkpointed layers run again in the backward pass, with the attention of that time.
        and not any(getattr(m, "gradient_checkpointing", False) for m in decoder.modules())
    )


def hidden_states(decoder: Any, tree: Tree) -> Tensor:
    """(B * L, H) as :func:`irlbook.lm.logprobs.hidden_states`; zeros in place of the pads."""
    _register()
    real = (tree.branch.flatten() >= 0).nonzero()[:, 0]  # (M,) places of the tokens
    config, usual = decoder.config, decoder.config._attn_implementation
    config._attn_implementation = NAME
    try:
        hidden = decoder(
            input_ids=tree.input_ids.flatten()[None, real],
            position_ids=tree.position_ids.flatten()[None, real],
            use_cache=False,
            rows=_rows(tree),
            causal=torch.ones(tree.depth, tree.depth, dtype=torch.bool).tril(),
        ).last_hidden_state[0]  # (M, H)
    finally:
        config._attn_implementation = usual
    return hidden.new_zeros(tree.input_ids.numel(), hidden.shape[1]).index_copy(0, real, hidden)


def _rows(tree: Tree) -> list[Row]:
    """How each row of the tree attends; the tokens of all pieces, in order, are the real ones."""
    prompts = (tree.branch == 0).sum(1).tolist()
    answers: list[list[int]] = [[] for _ in prompts]
    for owner, length in zip(tree.owner.tolist(), tree.lengths.tolist(), strict=True):
        answers[owner].append(length)
    visible: Tensor | None = None
    rows: list[Row] = []
    for b, (prompt, lengths) in enumerate(zip(prompts, answers, strict=True)):
        total = prompt + sum(lengths)
        if len(lengths) == 1:
            rows.append(([total], None))
        elif total <= WHOLE:
            visible = tree.visible if visible is None else visible
            rows.append(([total], visible[b : b + 1, :, :total, :total]))
        else:
            rows.append(([prompt, *lengths], None))
    return rows


@cache
def _register() -> None:
    """Make the attention known to transformers under its name."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward as attend

    def attention(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: None,
        *,
        rows: list[Row],
        causal: Tensor,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """Query (1, heads, M, D) and the others to (1, M, heads, D); no mask means causal."""
        sizes = [size for pieces, _ in rows for size in pieces]
        parts = zip(*(x.split(sizes, dim=2) for x in (query, key, value)), strict=True)
        found = []
        for (prompt, *responses), mask in rows:
            q, k, v = next(parts)
            found.append(attend(module, q, k, v, mask, is_causal=mask is None, **options)[0])
            for size in responses:  # each sees the prompt and itself
                q, own_k, own_v = next(parts)
                both = torch.cat([k, own_k], dim=2), torch.cat([v, own_v], dim=2)
                mask = causal[None, None, prompt : prompt + size, : prompt + size]
                found.append(attend(module, q, *both, mask, is_causal=False, **options)[0])
        return torch.cat(found, dim=1), None

    AttentionInterface.register(NAME, attention)
