"""Memory: what is free here, what a model takes, and a refusal before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import torch

from irlbook.errors import ModelTooLargeError

__all__ = ["CGROUP", "check_room", "free_memory", "size"]

CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: str) -> int:
    """Bytes that are free: of the GPU, or of this machine within what its container may use."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    free = int(psutil.virtual_memory().available)
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        return free if limit == "max" else min(free, max(0, int(limit) - used))
    except (OSError, ValueError):
        return free


def size(n: int) -> str:
    """Bytes in words."""
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 else f"{n / 2**20:.0f} MiB"


def check_room(
    what: Any, parameters: int, dtype: torch.dtype, devices: set[str], more: int = 0
) -> None:
    """Refuse a model that does not fit, with the numbers, before any of it is read.

    Args:
        what: what the model is called.
        devices: where its weights will lie; on the way to a GPU they pass through memory.
        more: further bytes that each weight needs on the last of them, such as 12 in training.

    Raises:
        ModelTooLargeError.
    """
    for device in sorted(devices):
        last = device == "cuda" or "cuda" not in devices
        extra = more * parameters if last else 0
        need, free = parameters * dtype.itemsize + extra, free_memory(device)
        if need <= free:
            continue
        name = str(dtype).removeprefix("torch.")
        learning = f", and {size(extra)} more to train them" if extra else ""
        mend = "train an adapter instead (--lora 8), or take" if extra else "Take"
        raise ModelTooLargeError(
            f"{what} does not fit into the memory of {device}: its {parameters:,} weights take "
            f"{size(parameters * dtype.itemsize)} in {name}{learning}; {size(free)} are free. "
            f"{mend[0].upper()}{mend[1:]} a smaller model, or free some memory."
        )
