"""Groups and trees: the batch on which every loss of post-training stands.

The data type is a *group*: one prompt and all responses to it (one for SFT, two for a preference,
G for best-of-n and policy gradients). A group becomes one row, a tree: the prompt is computed
once, the responses stand behind it, positions restart after the prompt, and a mask lets each token
see its prompt and its own response only.

    row        p0 p1 p2 | a0 a1 a2 | b0 b1
    position    0  1  2 |  3  4  5 |  3  4

What counts as a response is known from its *length*. No token id is ever taken for padding, so a
model whose pad token is its end token, or which has none, is scored like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from irlbook.errors import ResponseError

__all__ = ["Group", "Tree", "collate"]

Group = tuple[Sequence[int], Sequence[Sequence[int]]]
"""(prompt ids, [response ids, ...]); a response ends with the end token, if it ended."""


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
        moved: dict[str, Any] = {
            name: part.to(device) for name, part in parts.items() if isinstance(part, Tensor)
        }
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
