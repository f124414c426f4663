"""What each process holds when the states of training are split: bytes, counted and not computed.

    torchrun --nproc_per_node 2 -m irlbook.posttraining.shard_study

trains a model of the book's sizes for two steps three times over the processes that were started
(gloo, on CPUs), and prints what each of them holds:

* stage 0: each holds everything, and gradients are averaged (DDP);
* stage 1 of ZeRO: each holds the moments of some of the weights, moves these, and sends them to the
  others (PyTorch's `ZeroRedundancyOptimizer`);
* stage 3: weights, gradients and moments are all split (`irlbook.training.distributed.shard`).

Source of the stages: Rajbhandari et al. 2020, section 5.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from irlbook.lm import models
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.trees import Group, collate
from irlbook.training import distributed

__all__ = ["STAGES", "held_bytes", "main", "split_states", "stepped", "whole_batch"]

STAGES = (0, 1, 3)
_RATE = 1e-3


def whole_batch(rows: int = 8) -> list[Group]:
    """Rows of as many tokens each, so that the mean over two halves is the mean over all."""
    draw = torch.Generator().manual_seed(22)
    ids = torch.randint(3, 531, (rows, 30), generator=draw).tolist()
    return [(row[:11], [row[11:]]) for row in ids]


def stepped(stage: int | None, steps: int = 2) -> tuple[ResponseScorer, Any]:
    """(The scorer, its optimiser) after some steps; gradients stay. Of all processes together.

    Args:
        stage: 0, 1 or 3; None trains on the whole batch in this process alone.
    """
    scorer = ResponseScorer(models.tiny_lm(531))
    groups, wrapped = whole_batch(), scorer
    kind: Any = torch.optim.AdamW
    if stage is not None:
        rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
        groups = groups[rank::processes]
        if stage == 3:
            distributed.shard(scorer)
        else:
            wrapped = nn.parallel.DistributedDataParallel(scorer)  # type: ignore[assignment]
    if stage == 1:
        from torch.distributed.optim import ZeroRedundancyOptimizer

        optimizer: Any = ZeroRedundancyOptimizer(scorer.parameters(), kind, lr=_RATE)
    else:
        optimizer = kind(scorer.parameters(), lr=_RATE)
    for _ in range(steps):
        optimizer.zero_grad()
        (-wrapped(collate(groups, 0)).mean()).backward()
        optimizer.step()
    return scorer, optimizer


def held_bytes(scorer: nn.Module, optimizer: Any) -> dict[str, int]:
    """Bytes of weights, gradients and moments that lie in this process."""
    weights = list(scorer.parameters())
    inner = getattr(optimizer, "optim", optimizer)  # of ZeRO: the one that moves this process's
    moments = [v for state in inner.state.values() for k, v in state.items() if k != "step"]
    return {
        "weights": _bytes(weights),
        "gradients": _bytes(p.grad for p in weights if p.grad is not None),
        "optimiser": _bytes(moments),
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    own = [distributed.own_part(tensor) for tensor in tensors]
    return sum(t.numel() * t.element_size() for t in own)


def split_states() -> dict[str, Any]:
    """Of each stage what each process holds, and the largest difference of a weight from training
    in one process. All processes must call this, and hear the same."""
    processes = torch.distributed.get_world_size()
    alone = [p.detach() for p in stepped(None)[0].parameters()]
    stages = {}
    for stage in STAGES:
        scorer, optimizer = stepped(stage)
        if stage == 3:
            distributed.reshard(scorer)
        held: list[Any] = [None] * processes
        torch.distributed.all_gather_object(held, held_bytes(scorer, optimizer))
        together = [distributed.whole(p) for p in scorer.parameters()]
        apart = max(float((a - b).abs().max()) for a, b in zip(alone, together, strict=True))
        stages[str(stage)] = {"held": held, "apart": apart}
    return {"processes": processes, "parameters": sum(p.numel() for p in alone), "stages": stages}


def main() -> None:
    """Print what was measured, as a line of JSON."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    found = split_states()
    if torch.distributed.get_rank() == 0:
        print(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
