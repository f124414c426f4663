"""Devices and processes: where a run computes, and weights that are split over processes.

Several processes are started by torchrun, each with a copy of the weights, whose gradients are
averaged (DDP), or with a shard of them (FSDP2). The numbers stay those of one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from irlbook.errors import DeviceUnavailableError


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
    if not torch.distributed.is_initialized():  # another device or precision than last time
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=device == "cpu", mixed_precision="bf16" if precision == "bfloat16" else "no"
    )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The precision in which `accelerator` computes, for what runs outside it.

    A reference in another precision than the policy's differs from it before anything is learnt.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def is_main_process() -> bool:
    """Whether this process prints and saves; true where there is only one."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


@contextmanager
def gradients_meet(accelerator: Any, scorer: nn.Module, last: bool) -> Iterator[None]:
    """A backward pass in which the processes' gradients are averaged only if it is a step's last.

    Averaging in each micro-batch would give the same sum, and wait once for each.
    """
    if hasattr(scorer, "set_requires_gradient_sync"):  # FSDP2
        scorer.set_requires_gradient_sync(last)
        yield
    elif last:
        yield
    else:
        with accelerator.no_sync(scorer):
            yield


def shard(scorer: nn.Module, precision: str = "float32") -> None:
    """Split a model's weights over the processes, a decoder layer at a time (FSDP2), in place.

    accelerate's own FSDP does not run on the CPU; PyTorch's does, on the same weights.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    options = {}
    if precision == "bfloat16":
        options["mp_policy"] = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32
        )
    for module in scorer.modules():
        if isinstance(module, nn.ModuleList) and len(module):
            for layer in module:
                fully_shard(layer, **options)
    fully_shard(scorer, **options)


def unshard(scorer: nn.Module) -> None:
    """Put whole weights back, to be saved; all processes must call this. Not to be run again."""
    whole: dict[nn.Parameter, nn.Parameter] = {}  # tied weights stay tied
    for module in scorer.modules():
        if hasattr(module, "reshard"):
            module.reshard()  # an evaluation leaves the root gathered, and saving would undo it
    for module in scorer.modules():
        for name, p in module._parameters.items():
            if p is not None and hasattr(p, "full_tensor"):
                if p not in whole:
                    whole[p] = nn.Parameter(p.detach().full_tensor(), p.requires_grad)
                module._parameters[name] = whole[p]


def whole(tensor: Tensor) -> Tensor:
    """A copy in one piece on the CPU; all processes must call this."""
    tensor = tensor.detach()
    if hasattr(tensor, "full_tensor"):  # a shard: all processes give their part
        tensor = tensor.full_tensor()
    return tensor.cpu().contiguous()


def split_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """On the parameter's device, and split as it is."""
    tensor = tensor.to(parameter.device)
    if not hasattr(parameter, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
