"""A row for each response, padded on the right: slow, and right for every causal model.

Nothing is shared and no mask is invented here, so recurrent layers, convolutions, windows and
biases by distance all see what they saw in training. Pads stand behind the text, where a causal
model does not look.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from irlbook.lm.trees import Tree

__all__ = ["hidden_states", "response_logits", "unpack"]


def unpack(tree: Tree) -> tuple[Tensor, Tensor, Tensor]:
    """The responses of a tree as rows of their own.

    Returns:
        (R, W) ids; (R, W) their mask, 1 on the text; (B * L,) where each token of the tree stands
        among the R * W places, -1 for a pad. A prompt is looked for in its first response's row.
    """
    lengths, owner = tree.lengths, tree.owner
    prompt = (tree.branch == 0).sum(1)  # (B,)
    per_row = torch.bincount(owner, minlength=len(prompt))
    first = per_row.cumsum(0) - per_row  # (B,) the row's first response among the R
    before = lengths.cumsum(0) - lengths
    start = prompt[owner] + before - before[first][owner]  # (R,) where a response begins in its row
    total = prompt[owner] + lengths

    column = torch.arange(int(total.max()), device=tree.input_ids.device)
    behind = column >= prompt[owner][:, None]  # (R, W) in the response, or in a pad
    source = torch.where(behind, column + (start - prompt[owner])[:, None], column)
    mask = column < total[:, None]
    ids = tree.input_ids[owner].gather(1, source.clamp(max=tree.input_ids.shape[1] - 1))
    ids = ids.masked_fill(~mask, 0)

    row = first[:, None] + (tree.branch - 1).clamp(min=0)  # (B, L)
    place = (row * len(column) + tree.position_ids).masked_fill(tree.branch < 0, -1)
    return ids, mask.long(), place.flatten()


def hidden_states(decoder: Any, tree: Tree) -> Tensor:
    """(B * L, H) last hidden states on a tree, each response computed apart; zeros for pads."""
    ids, mask, place = unpack(tree)
    out = decoder(input_ids=ids, attention_mask=mask, use_cache=False)
    hidden = out.last_hidden_state.flatten(0, 1)  # (R * W, H)
    real = (place >= 0).nonzero()[:, 0]
    empty = hidden.new_zeros(len(place), hidden.shape[1])
    return empty.index_copy(0, real, hidden[place[real]])


def response_logits(model: Any, tree: Tree) -> Tensor:
    """(N, V) by the model's own forward, whatever it does to them behind its head."""
    ids, mask, place = unpack(tree)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits  # (R, W, V)
    return logits.flatten(0, 1)[place[tree.predictor]]
