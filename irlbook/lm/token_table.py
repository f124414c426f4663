"""The enumerable language model as a torch policy: every loss can be checked against the truth.

A loss of post-training sees a policy only through the log-probabilities of responses. Given those
of a table of logits, its value and its gradient can be compared with sums over *all* responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from irlbook.errors import ResponseError
from irlbook.lm.enumerable import EnumerableLM
from irlbook.lm.logprobs import sequence_logps, token_logps
from irlbook.lm.trees import Tree, collate

__all__ = ["TokenTable", "enumerate_model"]


class TokenTable(nn.Module):
    """A softmax policy with one logit for each prefix and token: `logits` (S, A).

    It takes the place of a causal model in ``token_logps`` and whatever stands on it. The prompt
    does not matter: a table is a model of one prompt. Token ids are those of the enumerable model.
    """

    def __init__(
        self,
        lm: EnumerableLM,
        policy: np.ndarray | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """
        Args:
            policy: (S, A) next-token probabilities to start from; default the model's own.
        """
        super().__init__()
        self.lm = lm
        with np.errstate(divide="ignore"):
            start = np.log(lm.policy if policy is None else policy)
        self.logits = nn.Parameter(torch.tensor(start, dtype=dtype))
        self.next_prefix: Tensor
        self.register_buffer("next_prefix", torch.tensor(lm.children), persistent=False)
        self._last: tuple[Tree, Tensor] | None = None

    def response_logits(self, tree: Tree) -> Tensor:
        """(N, A) logits that predict each response token; see :mod:`irlbook.lm.logprobs`.

        Raises:
            ResponseError: a response that goes on after its end.
        """
        return self.logits[self._prefixes(tree)]

    def log_probabilities(self) -> Tensor:
        """(R,) log pi(y) of every response, in the order of ``lm.responses``; differentiable."""
        tree = self._every_response
        return sequence_logps(token_logps(self, tree), tree.lengths)

    @cached_property
    def _every_response(self) -> Tree:
        """The tree of all responses: a loss over all of them asks for it at every step."""
        return collate([((0,), self.lm.response_ids())])

    def policy(self) -> np.ndarray:
        """(S, A) next-token probabilities."""
        return self.logits.detach().softmax(dim=1).double().cpu().numpy()

    def _prefixes(self, tree: Tree) -> Tensor:
        """(N,) the prefix in which each response token is chosen; that of the last tree is kept."""
        if self._last is None or self._last[0] is not tree:
            self._last = tree, self._follow(tree)
        return self._last[1]

    def _follow(self, tree: Tree) -> Tensor:
        """(N,) as above, token by token down the tree of prefixes."""
        state = torch.zeros_like(tree.target)
        first = tree.lengths.cumsum(0) - tree.lengths  # (R,) where each response starts
        if ((tree.target >= 0) & (tree.target < len(self.lm.tokens))).all():
            for step in range(1, int(tree.lengths.max())):
                here = (first + step)[tree.lengths > step]
                before = state[here - 1]
                # An ended prefix has children -1, and so do theirs: it stays -1.
                state[here] = torch.where(
                    before < 0, -1, self.next_prefix[before, tree.target[here - 1]]
                )
            ended = self.next_prefix[state, 0] < 0
            if not ended.any() and (state >= 0).all():
                return state
        raise ResponseError(
            f"a response has an unknown token or goes on after its end; this table writes tokens "
            f"0 to {len(self.lm.tokens) - 1}, the last of which ends, and at most "
            f"{self.lm.max_length} of them."
        )


def enumerate_model(
    model: Any, prompt: Sequence[int], max_length: int, names: Sequence[str] | None = None
) -> EnumerableLM:
    """Write down every response of a small causal model to one prompt.

    Args:
        model: a transformers causal model; the *last* token of its vocabulary ends a response.
        prompt: token ids.
        names: how to show the tokens; default their ids.
    """
    n_tokens = model.get_input_embeddings().num_embeddings
    device = next(model.parameters()).device
    start = torch.tensor(list(prompt), dtype=torch.long, device=device)

    def next_token_probabilities(prefixes: np.ndarray) -> np.ndarray:
        rows = torch.tensor(prefixes, dtype=torch.long, device=device)
        ids = torch.cat([start.expand(len(rows), -1), rows], dim=1)
        with torch.no_grad():
            logits = model(input_ids=ids, logits_to_keep=1).logits[:, -1]
        return logits.double().softmax(dim=1).cpu().numpy()

    names = [str(token) for token in range(n_tokens)] if names is None else names
    return EnumerableLM.create(names, max_length, next_token_probabilities)
