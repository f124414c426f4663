"""A chapter's runs that would take longer than a chapter may: made by the chapter, and stored.

A chapter asks for each run of a comparison over seeds by a name and a seed, and says how it is
made. The runs of some seeds are made where the chapter is executed, so that their policies are
there and the stored ones can be compared with them; those of the others are read:

    stored = StoredRuns("policy_gradients", settings={"iterations": 20}, here=(0,))
    rows = stored.get("RLOO", seed, lambda: run("RLOO", seed))

With another model (`used=False`) every run is made. The file is made by the same cells:

    python -m irlbook.authoring.remake_runs 13

executes the chapter with `IRLBOOK_RUNS` set to a folder. Then every run is made and kept there as
soon as it is done, and a second call goes on with those that are missing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from irlbook.errors import CheckpointError, DataNotFoundError, ResumeMismatchError
from irlbook.training.checkpoints import write_whole

__all__ = ["MAKING", "REMADE", "RESULTS", "StoredRuns", "bundle", "mean_gap", "read_stored"]

RESULTS = Path(__file__).resolve().parent.parent / "results"
MAKING = "IRLBOOK_RUNS"  # the folder in which runs are kept while they are made
REMADE = "IRLBOOK_REMADE"  # a folder whose files are read in the place of those of the same name
_DIGITS = 6  # that are stored of a number


class StoredRuns:
    """The runs of one chapter.

    Args:
        name: the file in `RESULTS`, without its ending.
        settings: what all runs share. Stored runs of other settings are refused.
        here: the seeds whose runs are made and not read; none: all are read, always.
        used: whether anything may be read; False where another model takes the book's place.
        folder: where the file lies.
        parts: a folder in which every run is made and kept; by default what `IRLBOOK_RUNS` says.

    Raises:
        DataNotFoundError: there is no such file, or it cannot be read.
        ResumeMismatchError: it holds runs of other settings.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        *,
        here: Collection[int] = (0,),
        used: bool = True,
        folder: Path | str = RESULTS,
        parts: Path | str | None = None,
    ) -> None:
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings)))
        self.here = frozenset(here)
        kept = os.environ.get(MAKING)
        self._parts = Path(parts) if parts is not None else Path(kept) / name if kept else None
        self._runs: dict[str, Any] | None = None
        if used and (self._parts is None or not self.here):
            path = Path(folder) / f"{name}.json"
            whole = _read(path, _AGAIN)
            if not {"settings", "runs"} <= set(whole):
                raise DataNotFoundError(f"{path} holds no settings and runs; {_AGAIN}.")
            self._runs, held = whole["runs"], whole["settings"]
            if held != self.settings:
                differ = sorted(
                    k for k in {*held, *self.settings} if held.get(k) != self.settings.get(k)
                )
                raise ResumeMismatchError(
                    f"{path} holds runs with another {', '.join(differ)}; {_AGAIN}, or set it back."
                )

    def get(self, what: str, seed: int, make: Callable[[], Any]) -> Any:
        """A run's record: made here, or as it was stored.

        Args:
            make: returns numbers, text, and lists and dictionaries of these. Six digits are kept.

        Raises:
            DataNotFoundError: the file has no such run.
        """
        if self._parts is not None:
            return self._kept(what, seed, make)
        if self._runs is None or seed in self.here:
            return _rounded(make())
        return self.stored(what, seed)

    def stored(self, what: str, seed: int) -> Any:
        """A run's record as it was stored; None where every run is made here.

        Raises:
            DataNotFoundError: the file has no such run.
        """
        if self._runs is None:
            return None
        try:
            return self._runs[what][str(seed)]
        except KeyError:
            raise DataNotFoundError(
                f"no run {what!r} of seed {seed} is stored; {_AGAIN}."
            ) from None

    def _kept(self, what: str, seed: int, make: Callable[[], Any]) -> Any:
        assert self._parts is not None
        key = json.dumps([what, seed, self.settings], sort_keys=True)
        path = self._parts / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        if path.exists():
            return _read(path, "remove it to run it again", CheckpointError)["record"]
        began = time.process_time()
        found = {"what": what, "seed": seed, "settings": self.settings, "record": _rounded(make())}
        found["seconds"] = round(time.process_time() - began, 1)
        text = json.dumps(found)
        write_whole(path, partial(Path.write_text, data=text, encoding="utf-8"))
        return found["record"]


def bundle(parts: Path | str, out: Path | str) -> dict[str, Any]:
    """Write the runs that were kept in a folder as one file, all or nothing; returns what it holds.

    Raises:
        DataNotFoundError: the folder holds no run.
        ResumeMismatchError: it holds runs of several settings.
    """
    found = [
        _read(path, "remove it to run it again", CheckpointError)
        for path in sorted(Path(parts).glob("*.json"))
    ]
    if not found:
        raise DataNotFoundError(f"{parts} holds no run; does the chapter ask for any?")
    if any(part["settings"] != found[0]["settings"] for part in found):
        raise ResumeMismatchError(
            f"{parts} holds runs of several settings; remove it, or give another folder."
        )
    runs: dict[str, dict[str, Any]] = {}
    for part in sorted(found, key=lambda part: (part["what"], part["seed"])):
        runs.setdefault(part["what"], {})[str(part["seed"])] = part["record"]
    packages = ("irlbook", "torch", "transformers", "numpy")
    whole = {
        "settings": found[0]["settings"],
        "made_with": {
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        "cpu_seconds": round(sum(part["seconds"] for part in found)),
        "runs": runs,
    }
    text = json.dumps(whole, separators=(",", ":")) + "\n"
    write_whole(Path(out), partial(Path.write_text, data=text, encoding="utf-8"))
    return whole


def mean_gap(
    made: list[dict[str, float]], stored: list[dict[str, float]], names: Collection[str], n: int = 3
) -> float:
    """Mean difference of two runs in some columns of their first n rows.

    Rounding differs between machines, and grows: the beginnings of two runs can be compared, their
    ends cannot.
    """
    both = ([[row[name] for name in names] for row in rows[:n]] for rows in (made, stored))
    one, other = (np.array(rows) for rows in both)
    return float(np.abs(one - other).mean())


def read_stored(path: Path | str, command: str) -> Any:
    """What a study left in a file.

    Args:
        command: makes the file again; the error names it.

    Raises:
        DataNotFoundError: there is none, or it cannot be read.
    """
    return _read(Path(path), f"make it again with {command}")


_AGAIN = "make it again with python -m irlbook.authoring.remake_runs CHAPTER --parts FOLDER"


def _rounded(value: Any) -> Any:
    """Numbers to six digits, those of NumPy and torch as Python's; NaN as None, as JSON wants."""
    if isinstance(value, Mapping):
        return {str(k): _rounded(v) for k, v in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def _read(path: Path, remedy: str, error: type[OSError] = DataNotFoundError) -> dict[str, Any]:
    remade = Path(os.environ[REMADE]) / path.name if REMADE in os.environ else path
    path = remade if path.parent == RESULTS and remade.exists() else path
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise error(f"{path} cannot be read ({problem}); {remedy}.") from problem
