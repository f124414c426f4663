"""One setting for the language-model chapters: which model, which data, which machine.

By default a chapter uses the book's own small model on the CPU. Environment variables make the
same cells run with a real model on a GPU:

    IRLBOOK_MODEL         name or folder of any causal language model (default: the book's own)
    IRLBOOK_PREFERENCES   preference file or name, for the sections on real data (default: none)
    IRLBOOK_DEVICE        cpu (default) or cuda
    IRLBOOK_PRECISION     float32 (default) or bfloat16
    IRLBOOK_CACHE         where models that were fine-tuned on the way are kept

A path is seen from the folder in which `irlbook run` or `irlbook lab` is called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from irlbook.data.files import FOLDER, find_data, is_hub_name
from irlbook.errors import DataNotFoundError, InvalidHyperparameterError

__all__ = ["DEVICES", "PRECISIONS", "Profile", "load", "whole_paths"]

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
        DataNotFoundError: there are no such preferences, and it is no name of the hub either. A
            chapter would otherwise find out after minutes.
    """
    found = os.environ if environment is None else environment
    values = {name: found.get(f"IRLBOOK_{name.upper()}") for name in Profile.__annotations__}
    for name, known in (("device", DEVICES), ("precision", PRECISIONS)):
        if values[name] and values[name] not in known:
            raise InvalidHyperparameterError(
                f"IRLBOOK_{name.upper()} is {values[name]!r}; use {' or '.join(known)}."
            )
    if (named := values["preferences"]) and not is_hub_name(named):
        try:
            find_data(named)
        except DataNotFoundError as error:
            raise DataNotFoundError(f"IRLBOOK_PREFERENCES: {error}") from None
    chosen: dict[str, Any] = {name: value for name, value in values.items() if value}
    if "cache" in chosen:
        chosen["cache"] = Path(chosen["cache"]).expanduser()
    return Profile(**chosen)


def whole_paths(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which the book's variables hold whole paths.

    A kernel works in the folder of its notebook, where "pairs.jsonl" would mean another file than
    in the folder of the person who typed it. What is no path here, such as a name of the hub,
    stays.
    """
    whole = dict(environment)
    for name in ("IRLBOOK_MODEL", "IRLBOOK_PREFERENCES", "IRLBOOK_CACHE", FOLDER):
        path = Path(whole.get(name, "")).expanduser()
        # A folder for the cache is made when it is needed.
        if whole.get(name) and (name == "IRLBOOK_CACHE" or path.exists()):
            whole[name] = str(path.resolve())
    return whole
