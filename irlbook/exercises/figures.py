"""What a Matplotlib figure shows, as data: a check of a picture reads these, not pixels.

The student's process describes the figure with `described`; the check receives a `Picture`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from irlbook.errors import CodecError

__all__ = ["Line", "Panel", "Picture", "described", "none_left_open", "picture"]


@dataclass(frozen=True)
class Line:
    """A line of a panel; one with other than numbers on an axis is left out.

    Attributes:
        label: its name in the legend, "" for none.
        x, y: its points, each of shape (n,).
        marked: whether each point has a marker, and is not only a bend of the line.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    marked: bool


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title, xlabel, ylabel: as they stand there.
        xscale, yscale: "linear", "log" ...
        legend: the texts of the legend, () without one.
        lines: what `plot`, `axvline`, `vlines` and `axline` drew.
        points: what `scatter` drew, arrays of shape (n, 2).
        bars: the heights of all bars, from left to right.
        images: what `imshow` and `pcolormesh` drew, as arrays.
        colorbar: whether one of the images or scatters has a colour bar.
    """

    title: str
    xlabel: str
    ylabel: str
    xscale: str
    yscale: str
    legend: tuple[str, ...]
    lines: tuple[Line, ...]
    points: tuple[np.ndarray, ...]
    bars: np.ndarray
    images: tuple[np.ndarray, ...]
    colorbar: bool


@dataclass(frozen=True)
class Picture:
    """A figure: its panels in the order in which they were made; colour bars are no panels."""

    axes: tuple[Panel, ...]


def _floats(values: Any) -> np.ndarray | None:
    """Values as floats, what is masked as NaN; None for other than numbers."""
    try:
        return np.ma.filled(np.ma.asarray(values).astype(float), np.nan)
    except (TypeError, ValueError):
        return None


def _label(artist: Any) -> str:
    label = str(artist.get_label())
    return "" if label.startswith("_") else label


def _line(line: Any) -> dict[str, Any] | None:
    drawn = line.get_xdata(), line.get_ydata()
    if type(line).__name__ == "AxLine":  # its data do not say where it runs: from edge to edge
        to_pixels = line.get_transform().transform([(0.0, 0.0), (1.0, 1.0)])
        drawn = line.axes.transData.inverted().transform(to_pixels).T
    x, y = map(_floats, drawn)
    if x is None or y is None or x.shape != y.shape:
        return None
    marked = str(line.get_marker()).strip().lower() not in ("", "none")
    return {"label": _label(line), "x": x, "y": y, "marked": marked}


def _segments(collection: Any) -> list[dict[str, Any]]:
    """The lines of `vlines`, `hlines` and their like."""
    label = _label(collection)
    ends = [np.asarray(segment, dtype=float) for segment in collection.get_segments()]
    return [{"label": label, "x": xy[:, 0], "y": xy[:, 1], "marked": False} for xy in ends]


def _panel(ax: Any) -> dict[str, Any]:
    legend = ax.get_legend()
    lines = [line for line in map(_line, ax.lines) if line is not None]
    segments = [c for c in ax.collections if type(c).__name__ == "LineCollection"]
    lines += [line for collection in segments for line in _segments(collection)]
    drawn = [*ax.images, *ax.collections]
    points = [artist for artist in drawn if type(artist).__name__ == "PathCollection"]
    images = [artist for artist in drawn if artist not in points and artist.get_array() is not None]
    rectangles = [p for p in ax.patches if hasattr(p, "get_height")]
    rectangles.sort(key=lambda bar: float(bar.get_x()))
    return {
        "title": str(ax.get_title()),
        "xlabel": str(ax.get_xlabel()),
        "ylabel": str(ax.get_ylabel()),
        "xscale": str(ax.get_xscale()),
        "yscale": str(ax.get_yscale()),
        "legend": [str(text.get_text()) for text in legend.get_texts()] if legend else [],
        "lines": lines,
        "points": [_floats(c.get_offsets()) for c in points],
        "bars": np.array([float(bar.get_height()) for bar in rectangles]),
        "images": [_floats(image.get_array()) for image in images],
        "colorbar": any(getattr(artist, "colorbar", None) is not None for artist in drawn),
    }


def described(figure: Any) -> dict[str, Any]:
    """A Matplotlib figure, or the figure of given axes, as plain data."""
    figure = getattr(figure, "figure", figure)
    panels = [_panel(ax) for ax in figure.axes if not hasattr(ax, "_colorbar")]
    return {"axes": panels}


def _open() -> set[int]:
    pyplot = sys.modules.get("matplotlib.pyplot")
    return set(pyplot.get_fignums()) if pyplot else set()


@contextmanager
def none_left_open() -> Iterator[None]:
    """Close what was drawn inside: a notebook would show it, and pyplot keep it, for every call."""
    before = _open()
    try:
        yield
    finally:
        for number in _open() - before:
            sys.modules["matplotlib.pyplot"].close(number)


def picture(data: Any) -> Picture:
    """What `described` gave, after its journey.

    Raises:
        CodecError: it is not what `described` gives.
    """
    arrays, texts = ("points", "images"), ("title", "xlabel", "ylabel", "xscale", "yscale")
    try:
        panels = []
        for panel in data["axes"]:
            lines = tuple(Line(**line) for line in panel["lines"])
            tuples = {name: tuple(panel[name]) for name in ("legend", *arrays)}
            made = Panel(**{**panel, **tuples, "lines": lines})
            plain = [*(getattr(made, name) for name in texts), *made.legend]
            plain += [line.label for line in lines]
            numbers = [made.bars, *made.points, *made.images]
            numbers += [array for line in lines for array in (line.x, line.y)]
            if not all(isinstance(text, str) for text in plain):
                raise TypeError
            if not all(isinstance(line.marked, bool) for line in lines):
                raise TypeError
            if not all(isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in numbers):
                raise TypeError
            panels.append(made)
    except (TypeError, KeyError, AttributeError):
        raise CodecError("a broken picture") from None
    return Picture(tuple(panels))
