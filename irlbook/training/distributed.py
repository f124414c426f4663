"""Devices and processes: where a run computes, and weights that are split over processes.

Several processes are started by torchrun, each with a copy of the weights, whose gradients are
averaged (DDP), or with a shard of them (FSDP2). The numbers stay those of one process.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from irlbook.errors import DeviceUnavailableError, InvalidHyperparameterError
from irlbook.training.config import StepConfig

__all__ = [
    "accelerator",
    "autocast",
    "check_device",
    "check_shard",
    "copy_weights",
    "gradients_meet",
    "is_main_process",
    "own_part",
    "ranks",
    "reshard",
    "shard",
    "split_like",
    "unshard",
    "whole",
    "whole_weights",
]


def check_device(device: str) -> None:
    """Raise DeviceUnavailableError unless this is "cpu", or "cuda" and there is a GPU."""
    if device not in ("cpu", "cuda"):
        raise DeviceUnavailableError(f"device {device!r} is unknown; use cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailableError(
            "a GPU was asked for and PyTorch sees none. Use device cpu, or install a PyTorch built "
            "for your GPU; `irlbook doctor` shows what it sees."
        )


def accelerator(device: str, precision: str) -> Any:
    """A fresh `accelerate.Accelerator` on the device that was asked for, never another.

    Args:
        device: cpu or cuda. precision: bfloat16 computes under autocast, float32 does not.

    Raises:
        DeviceUnavailableError.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    check_device(device)
    group = torch.distributed  # vLLM makes one of a single process
    if not group.is_initialized() or group.get_world_size() == 1:
        # another device or precision than last time
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=device == "cpu", mixed_precision="bf16" if precision == "bfloat16" else "no"
    )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The precision in which `accelerator` computes, for what runs outside it.

    A reference in another precision than the policy's differs from it before anything is learned.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def is_main_process() -> bool:
    """Whether this process prints and saves; true where there is only one."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def ranks(device: str) -> tuple[int, int]:
    """(Which process this is, of how many); the first call waits for the others to be there."""
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu")
    return state.process_index, state.num_processes


@contextmanager
def gradients_meet(accelerator: Any, scorer: nn.Module, last: bool) -> Iterator[None]:
    """A backward pass in which the processes' gradients are averaged only if it is a step's last.

    Averaging in each micro-batch would give the same sum, and wait once for each.
    """
    sync: Any = getattr(scorer, "set_requires_gradient_sync", None)  # of FSDP2
    if sync is not None:
        sync(last)
        yield
    elif last:
        yield
    else:
        with accelerator.no_sync(scorer):
            yield


def check_shard(config: StepConfig) -> None:
    """Raise InvalidHyperparameterError where weights shall be split, and there is one process."""
    if config.shard and not int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InvalidHyperparameterError(
            "shard needs several processes. Start them with torchrun --nproc_per_node N."
        )


def shard(scorer: nn.Module, precision: str = "float32") -> None:
    """Split a model's weights over the processes, a decoder layer at a time (FSDP2), in place.

    accelerate's own FSDP does not run on the CPU; PyTorch's does, on the same weights.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    options: dict[str, Any] = {}
    if precision == "bfloat16":
        options["mp_policy"] = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32
        )
    for module in scorer.modules():
        if isinstance(module, nn.ModuleList) and len(module):
            for layer in module:
                fully_shard(layer, **options)
    fully_shard(scorer, **options)


def reshard(scorer: nn.Module) -> None:
    """Split again what an evaluation has left gathered: FSDP2 keeps the root so."""
    for module in scorer.modules():
        split: Any = getattr(module, "reshard", None)
        if split is not None:
            split()


def unshard(scorer: nn.Module) -> None:
    """Put whole weights back, to be saved; all processes must call this. Not to be run again."""
    whole: dict[nn.Parameter, nn.Parameter] = {}  # tied weights stay tied
    reshard(scorer)  # saving would undo it
    for module in scorer.modules():
        for name, p in module._parameters.items():
            if p is not None and hasattr(p, "full_tensor"):
                if p not in whole:
                    part: Any = p.detach()
                    whole[p] = nn.Parameter(part.full_tensor(), p.requires_grad)
                module._parameters[name] = whole[p]


def whole(tensor: Tensor) -> Tensor:
    """A copy in one piece on the CPU; all processes must call this."""
    found: Any = tensor.detach()
    if hasattr(found, "full_tensor"):  # a shard: all processes give their part
        found = found.full_tensor()
    return found.cpu().contiguous()


def whole_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(Name, tensor) of a model's state, in one piece on its device.

    Split weights are gathered one at a time, when they are asked for, so no process holds them all;
    tied ones come under each of their names, and are gathered once. All processes must take all.
    """
    state = model.state_dict(keep_vars=True)
    left = Counter(map(id, state.values()))  # names for which a tensor has not been given yet
    kept: dict[int, Tensor] = {}
    for name, tensor in state.items():
        found: Any = kept.pop(id(tensor), None)
        if found is None:
            found = tensor.detach()
            found = found.full_tensor() if hasattr(found, "full_tensor") else found
        left[id(tensor)] -= 1
        if left[id(tensor)]:
            kept[id(tensor)] = found
        yield name, found


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Make `target`, which is whole, equal to a model of the same kind; all processes must."""
    own = target.state_dict()
    for name, tensor in whole_weights(source):
        own[name].copy_(tensor)


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, which shares its memory: a shard, or all of it."""
    found: Any = tensor.detach()
    return found.to_local() if hasattr(found, "to_local") else found


def split_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """On the parameter's device, and split as it is."""
    tensor, shard = tensor.to(parameter.device), cast(Any, parameter)
    if not hasattr(shard, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, shard.device_mesh, shard.placements)
