"""Reader of the mice in the labyrinth (Rosenberg, Zhang, Perona & Meister, eLife 2021).

A folder with two files, cut out of the authors' public repository (MIT licence):
`node_steps.csv` (mouse_segment, bout, step, node, frame_in_bout) and, where water was recorded,
`rewards.csv` (mouse_segment, bout, start_frame, end_frame, node_at_start). Frames come 30 a second.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from irlbook.data.files import find_data
from irlbook.errors import DataNotFoundError, DataTooLargeError, EmptyDataError, MalformedRowsError

__all__ = [
    "Bout",
    "DRINK_COLUMNS",
    "DRINK_DELAY",
    "EXIT",
    "MOST_BYTES",
    "STEP_COLUMNS",
    "TIMEOUT",
    "read_labyrinth",
]

STEP_COLUMNS = ("mouse_segment", "bout", "step", "node", "frame_in_bout")
DRINK_COLUMNS = ("mouse_segment", "bout", "start_frame", "end_frame", "node_at_start")
MOST_BYTES = 64 * 1024**2
EXIT = 127
TIMEOUT = 2700  # frames: the port gives a drop at most every 90 seconds
DRINK_DELAY = 90  # frames by which the arrival at the port may be logged before the drop


@dataclass(frozen=True)
class Bout:
    """One visit of one mouse to the maze.

    Attributes:
        segment: mouse and recording. number: of the bout.
        nodes: (T + 1,) nodes in order; the last is the exit, 127. frames: (T + 1,) when.
        drinks: (D,) frames at which water began to flow; empty where none was recorded.
    """

    segment: str
    number: int
    nodes: np.ndarray
    frames: np.ndarray
    drinks: np.ndarray

    def thirst(self) -> np.ndarray:
        """(T + 1,) bool: would the port give water? True until 90 seconds after the last drop.

        At the beginning of a bout the port counts as filled: the clock restarts with each bout.
        """
        order = np.searchsorted(self.drinks - DRINK_DELAY, self.frames, side="right")
        last = np.where(order > 0, np.append(self.drinks, 0)[order - 1], -TIMEOUT - 1)
        return self.frames - last > TIMEOUT


def read_labyrinth(name: str | Path = "mouse_labyrinth", segment: str | None = None) -> list[Bout]:
    """The bouts of one segment, or of all, in the order of the file.

    Args:
        name: the folder; a path, or a name under the folder in IRLBOOK_DATA.
        segment: "A1b", "D6", "D9a" or "D9b"; None for all.

    Raises:
        DataNotFoundError: the folder, the file or the segment is not there.
        MalformedRowsError: a row that is not what it should be, named by file and line: columns
            that are missing, text for a number, a node outside the maze, steps out of order.
        DataTooLargeError, EmptyDataError.
    """
    folder = find_data(name)
    steps: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for where, (mouse, bout, step, node, frame) in _rows(folder / "node_steps.csv", STEP_COLUMNS):
        path = steps.setdefault((mouse, bout), [])
        if step != len(path):
            raise _malformed(where, f"step {step} of bout {bout} follows on {len(path)} steps")
        if not 0 <= node <= EXIT:
            raise _malformed(where, f"node {node} is outside 0..{EXIT}")
        if path and frame < path[-1][1]:
            raise _malformed(where, f"frame {frame} comes before frame {path[-1][1]}")
        path.append((node, frame))
    drinks: dict[tuple[str, int], list[int]] = {}
    if (folder / "rewards.csv").exists():
        for where, (mouse, bout, begin, end, _) in _rows(folder / "rewards.csv", DRINK_COLUMNS):
            if (mouse, bout) not in steps:
                raise _malformed(where, f"there is no bout {bout} of {mouse} in node_steps.csv")
            if end < begin:
                raise _malformed(where, f"the water ends ({end}) before it begins ({begin})")
            drinks.setdefault((mouse, bout), []).append(begin)
    segments = sorted({mouse for mouse, _ in steps})
    if segment is not None and segment not in segments:
        raise DataNotFoundError(f"no segment {segment!r} here; there are {', '.join(segments)}.")
    bouts = []
    for (mouse, bout), path in steps.items():
        if segment in (None, mouse):
            nodes, frames = np.array(path).T
            drunk = np.sort(drinks.get((mouse, bout), [])).astype(int)
            bouts.append(Bout(mouse, bout, nodes, frames, drunk))
    return bouts


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, list]]:
    """("file:line", [mouse, ints ...]) of each row, after the header."""
    if not path.exists():
        raise DataNotFoundError(f"{path.name} is not in the folder {path.parent.name}.")
    if path.stat().st_size > MOST_BYTES:
        raise DataTooLargeError(
            f"{path.name} has more than {MOST_BYTES} bytes; is it the right one?"
        )
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        reader = csv.reader(stream)
        try:
            header = tuple(next(reader, ()))
            if header != columns:
                raise _malformed(f"{path.name}:1", f"the columns are {header}, not {columns}")
            for row in reader:
                where = f"{path.name}:{reader.line_num}"
                if len(row) != len(columns):
                    raise _malformed(where, f"{len(row)} fields instead of {len(columns)}")
                try:
                    numbers = [int(field) for field in row[1:]]
                except ValueError:
                    raise _malformed(where, f"{row[1:]} are not all whole numbers") from None
                yield where, [row[0], *numbers]
        except csv.Error as error:
            raise _malformed(f"{path.name}:{reader.line_num}", str(error)) from None
    if reader.line_num < 2:
        raise EmptyDataError(f"{path.name} has a header and no rows.")


def _malformed(where: str, reason: str) -> MalformedRowsError:
    return MalformedRowsError(f"{where}: {reason}. Mend the row, or leave its bout out.")
