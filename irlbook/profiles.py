"""One setting for the language-model chapters: which model, which data, which machine.

By default a chapter uses the book's own small model on the CPU. Environment variables make the
same cells run with a real model on a GPU:

    IRLBOOK_MODEL         name or folder of any causal language model (default: the book's own)
    IRLBOOK_PREFERENCES   preference file or name, for the sections on real data (default: none)
    IRLBOOK_DEVICE        cpu (default) or cuda
    IRLBOOK_PRECISION     float32 (default) or bfloat16
    IRLBOOK_CACHE         where models that were fine-tuned on the way are kept
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from irlbook.errors import InvalidHyperparameterError

__all__ = ["DEVICES", "PRECISIONS", "Profile", "load"]

DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Profile:
    """What `load` found; the fields are the environment variables."""

    model: str | None = None
    preferences: str | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    cache: Path = Path.home() / ".cache" / "irlbook"


def load(environment: Mapping[str, str] | None = None) -> Profile:
    """The profile that the environment asks for.

    Raises:
        InvalidHyperparameterError: an unknown device or precision. Whether there is a GPU is asked
            when it is used.
    """
    found = os.environ if environment is None else environment
    values = {name: found.get(f"IRLBOOK_{name.upper()}") for name in Profile.__annotations__}
    for name, known in (("device", DEVICES), ("precision", PRECISIONS)):
        if values[name] and values[name] not in known:
            raise InvalidHyperparameterError(
                f"IRLBOOK_{name.upper()} is {values[name]!r}; use {' or '.join(known)}."
            )
    chosen: dict[str, Any] = {name: value for name, value in values.items() if value}
    if "cache" in chosen:
        chosen["cache"] = Path(chosen["cache"]).expanduser()
    return Profile(**chosen)
