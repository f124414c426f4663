"""Small things to train, without transformers: quick to import in a process of their own."""

import torch
from torch import Tensor, nn

from irlbook.lm.trees import Group, Tree

TOKENS = 12


class Bigram(nn.Module):
    """log pi(y_t | y_{t-1}) from a table; float64 unless told."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(TOKENS, TOKENS, dtype=dtype, generator=draw))
        self.shift = nn.Parameter(torch.zeros(TOKENS, dtype=dtype))

    def forward(self, tree: Tree) -> Tensor:
        """(N,) log-probabilities of the response tokens."""
        before = tree.input_ids.flatten()[tree.predictor]
        logps = torch.log_softmax(self.table[before] + self.shift, dim=-1)
        return logps.gather(1, tree.target[:, None])[:, 0]


def random_groups(n: int, responses: int, seed: int = 0, longest: int = 9) -> list[Group]:
    """Ragged groups of random tokens, 1 to `longest` long."""
    draw = torch.Generator().manual_seed(seed)

    def ids() -> list[int]:
        length = int(torch.randint(1, longest + 1, (1,), generator=draw))
        return torch.randint(1, TOKENS, (length,), generator=draw).tolist()

    return [(ids(), [ids() for _ in range(responses)]) for _ in range(n)]
