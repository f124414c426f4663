"""Demonstrations as vectors: `.npz` files of the imitation library's rollout format.

One file holds all trajectories end to end: `obs` (sum of lengths + N, O), one row more a
trajectory than actions; `acts` (sum of lengths, ...); `indices` (N - 1,), where each trajectory
but the first begins in `acts`; `terminal` (N,); and `rews` (sum of lengths,) if rewards were kept.
Pickled arrays (the library's `infos`) are never opened: they could run any code.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from irlbook.data.files import find_data
from irlbook.errors import DataTooLargeError, InvalidDataError

__all__ = ["MOST_BYTES", "Rollouts", "read_rollouts"]

MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Rollouts:
    """N trajectories of vectors, stored end to end.

    Attributes:
        observations: (sum(lengths) + N, O), the last of each is where it ended.
        actions: (sum(lengths),) or (sum(lengths), A).
        lengths: (N,) actions in each.
        terminal: (N,) bool, as the file says; a time limit is often counted as an end.
        rewards: (sum(lengths),) or None.
    """

    observations: np.ndarray
    actions: np.ndarray
    lengths: np.ndarray
    terminal: np.ndarray
    rewards: np.ndarray | None

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of (length + 1, O) observations and (length, ...) actions."""
        ends = np.cumsum(self.lengths)
        for i, (end, length) in enumerate(zip(ends, self.lengths, strict=True)):
            yield (
                self.observations[end - length + i : end + i + 1],
                self.actions[end - length : end],
            )

    @property
    def returns(self) -> np.ndarray:
        """(N,) sum of the rewards of each."""
        if self.rewards is None:
            raise InvalidDataError("these rollouts came without rewards.")
        return np.add.reduceat(self.rewards, np.cumsum(self.lengths) - self.lengths)

    def labelled(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, O) observations in which an action was taken, and those actions."""
        keep = np.ones(len(self.observations), dtype=bool)
        keep[np.cumsum(self.lengths + 1) - 1] = False
        return self.observations[keep], self.actions


def read_rollouts(name: str | Path, *, most_bytes: int = MOST_BYTES) -> Rollouts:
    """Read a rollout file and check it.

    Args:
        name: a path, or a name under the folder in IRLBOOK_DATA
            ("imitation_demos/cartpole_noobj.npz").
        most_bytes: of the arrays after unpacking.

    Raises:
        DataNotFoundError: there is no such file.
        DataTooLargeError: larger than `most_bytes`.
        InvalidDataError: an array is missing, pickled, not finite, or does not fit the others; or a
            trajectory takes no action. The message names the array or the trajectory.
    """
    path = find_data(name)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > most_bytes:
                raise DataTooLargeError(f"{path.name} unpacks to more than {most_bytes} bytes.")
        with np.load(path, allow_pickle=False) as held:
            names = ("obs", "acts", "indices", "terminal", "rews")
            arrays = {key: held[key] for key in names if key in held.files}
    except DataTooLargeError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise InvalidDataError(
            f"{path.name} is not a readable .npz of plain arrays ({error}). "
            "Save it again without pickled objects: np.savez(file, obs=..., acts=..., ...)."
        ) from error
    for key in ("obs", "acts", "terminal"):
        if key not in arrays:
            raise InvalidDataError(f"{path.name} has no array {key!r}.")
    obs, acts, terminal = arrays["obs"], arrays["acts"], arrays["terminal"].reshape(-1)
    if obs.ndim != 2 or acts.ndim not in (1, 2):
        raise InvalidDataError(
            f"obs must be (steps + trajectories, O) and acts (steps,) or (steps, A); "
            f"got {obs.shape} and {acts.shape}."
        )
    splits = np.asarray(arrays.get("indices", []), dtype=int).reshape(-1)
    lengths = np.diff(np.concatenate([[0], splits, [len(acts)]]))
    if (lengths < 1).any():
        raise InvalidDataError(
            f"trajectory {int(np.argmax(lengths < 1))} takes no action, or `indices` do not rise."
        )
    if len(obs) != len(acts) + len(lengths) or len(terminal) != len(lengths):
        raise InvalidDataError(
            f"{len(lengths)} trajectories with {len(acts)} actions need "
            f"{len(acts) + len(lengths)} observations and {len(lengths)} terminal flags; "
            f"got {len(obs)} and {len(terminal)}. Each trajectory has one observation more."
        )
    rewards = arrays.get("rews")
    if rewards is not None and rewards.shape != (len(acts),):
        raise InvalidDataError(f"rews has shape {rewards.shape}; expected ({len(acts)},).")
    for key, array in (("obs", obs), ("acts", acts), ("rews", rewards)):
        if array is None:
            continue
        bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
        if bad.size:
            raise InvalidDataError(f"row {bad[0]} of {key} holds NaN or infinity.")
    return Rollouts(obs, acts, lengths, terminal.astype(bool), rewards)
