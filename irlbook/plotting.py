"""Figures of the book: one palette, one way to show them, and the pictures that recur.

Every figure is stored as a small png with a text alternative, drawn in colours that colour-blind
readers can tell apart, and comes out byte for byte the same when it is drawn again.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from irlbook.display import publish
from irlbook.errors import FigureError

__all__ = [
    "COLORS",
    "DPI",
    "FROZEN_LAKE_MOVES",
    "MOVES",
    "color_bar",
    "draw_loop",
    "draw_policy",
    "draw_states",
    "heatmap",
    "shared_scale",
    "show",
    "spread",
    "to_png",
    "use_style",
]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLORS: dict[str, str] = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "red": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "black": "#000000",
}
"""The Okabe-Ito palette (Okabe and Ito, 2008), in the order in which lines take it."""

DPI = 80

MOVES: tuple[tuple[int, int], ...] = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""(row, column) steps of the actions up, right, down, left; rows count downwards."""

FROZEN_LAKE_MOVES: tuple[tuple[int, int], ...] = ((0, -1), (1, 0), (0, 1), (-1, 0))
"""The order of Gymnasium's FrozenLake: left, down, right, up."""


def use_style() -> None:
    """Set matplotlib's defaults to those of the book: palette, small figures, quiet axes."""
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=list(COLORS.values())),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "figure.constrained_layout.use": True,
            "figure.dpi": DPI,
            "figure.figsize": (6.4, 3.6),
            "font.size": 10,
            "image.cmap": "viridis",
            "legend.frameon": False,
            "savefig.dpi": DPI,
        }
    )


def to_png(fig: "Figure", dpi: int = DPI) -> bytes:
    """Draw `fig` as a png. The same figure gives the same bytes: no date, no version inside."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def show(fig: "Figure", alt: str, caption: str = "") -> None:
    """Show `fig` in the notebook with its text alternative, then close it.

    Args:
        fig: the figure; it is closed, so that no backend shows it a second time.
        alt: a few sentences for a reader who cannot see it: what is drawn and what it shows.
        caption: one sentence for those who see it: what is drawn, and what stands where. The site
            and the pages of `irlbook run` number it and set it below the figure; without one they
            take the first sentence of `alt`.

    Raises:
        FigureError: `alt` is empty.

    Outside a notebook nothing is displayed; the figure is drawn (so errors surface) and closed.
    """
    import matplotlib.pyplot as plt

    if not isinstance(alt, str) or not alt.strip():
        raise FigureError(
            "this figure has no alt text; say in one sentence what it shows: "
            'plotting.show(fig, alt="...")'
        )
    alt = " ".join(alt.split())
    said = {"alt": alt} | ({"caption": " ".join(caption.split())} if caption.strip() else {})
    png = to_png(fig)
    plt.close(fig)
    publish({"image/png": png, "text/plain": f"Figure: {alt}"}, {"image/png": said})


def _grid(values: np.ndarray, shape: tuple[int, int] | None) -> np.ndarray:
    """`values` with its leading axis of rows * columns states unfolded to (rows, columns, ...)."""
    values = np.asarray(values)
    if shape is None:
        return values
    if values.shape[: len(shape)] == tuple(shape):
        return values
    if values.shape[0] != shape[0] * shape[1]:
        raise FigureError(
            f"{values.shape[0]} values do not fill a grid of {shape[0]} x {shape[1]}; "
            "give one value for each square, and NaN for a wall"
        )
    return values.reshape(*shape, *values.shape[1:])


def heatmap(
    ax: "Axes",
    values: np.ndarray,
    *,
    shape: tuple[int, int] | None = None,
    walls: np.ndarray | None = None,
    annotate: bool = False,
    fmt: str = "{:.2f}",
    cmap: str = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
    title: str | None = None,
    colorbar: bool = False,
) -> "AxesImage":
    """Draw one number for each square of a grid.

    Args:
        ax: where to draw.
        values: (rows, columns), or (rows * columns,) together with `shape`.
        shape: (rows, columns) when `values` is flat.
        walls: (rows, columns) or flat, bool: squares drawn grey and hatched. NaN is a wall too.
        annotate: write the number into each square, in black or white as the colour needs.
        fmt: how it is written.
        cmap, vmin, vmax: as in matplotlib; the range defaults to that of the open squares.
        title: the title of the axes.
        colorbar: add a colour bar.

    Returns:
        The image, for a shared colour bar.

    Raises:
        FigureError: the values do not fill the grid.
    """
    from matplotlib.patches import Rectangle

    grid = np.asarray(_grid(values, shape), dtype=float)
    if grid.ndim != 2:
        raise FigureError(
            f"a heat map needs a grid of values, not shape {grid.shape}; "
            "give (rows, columns), or a flat array and shape=(rows, columns)"
        )
    closed = ~np.isfinite(grid)
    if walls is not None:
        closed |= np.asarray(_grid(walls, grid.shape), dtype=bool)
    image = ax.imshow(np.ma.array(grid, mask=closed), cmap=cmap, vmin=vmin, vmax=vmax)
    for row, column in np.argwhere(closed):
        ax.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5), 1, 1, facecolor="0.8", edgecolor="0.5", hatch="///", lw=0
            )
        )
    if annotate:
        for row, column in np.argwhere(~closed):
            red, green, blue, _ = image.cmap(image.norm(grid[row, column]))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text = fmt.format(grid[row, column] + 0.0)
            color = "white" if dark else "black"
            ax.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    ax.set_xticks([])
    ax.set_yticks([])
    if title is not None:
        ax.set_title(title)
    if colorbar:
        ax.figure.colorbar(image, ax=ax, shrink=0.8)
    return image


def draw_policy(
    ax: "Axes",
    policy: np.ndarray,
    *,
    shape: tuple[int, int] | None = None,
    moves: Sequence[tuple[int, int]] = MOVES,
    skip: np.ndarray | None = None,
    color: str = "black",
    threshold: float = 0.05,
) -> None:
    """Draw a policy as arrows, each as long as its action is probable.

    Args:
        ax: where to draw, usually over a `heatmap`.
        policy: (rows, columns, A) probabilities, or (rows * columns, A) together with `shape`.
        shape: (rows, columns) when `policy` is flat.
        moves: (row, column) step of each action, `MOVES` (up, right, down, left) unless told;
            (0, 0) is drawn as a dot.
        skip: (rows, columns) or flat, bool: squares without an arrow (walls, goals). Squares whose
            probabilities are NaN are skipped too.
        color: of the arrows.
        threshold: actions less probable than this are not drawn.

    Raises:
        FigureError: the policy has not one column for each move, or does not fill the grid.
    """
    grid = np.asarray(_grid(policy, shape), dtype=float)
    if grid.ndim != 3 or grid.shape[2] != len(moves):
        raise FigureError(
            f"a policy over {len(moves)} moves needs shape (rows, columns, {len(moves)}), "
            f"not {grid.shape}; give shape=(rows, columns) and moves=[(row step, column step), ...]"
        )
    open_squares = np.isfinite(grid).all(axis=2)
    if skip is not None:
        open_squares &= ~np.asarray(_grid(skip, grid.shape[:2]), dtype=bool)
    for row, column in np.argwhere(open_squares):
        for probability, (down, right) in zip(grid[row, column], moves, strict=True):
            if probability < threshold:
                continue
            if (down, right) == (0, 0):
                ax.plot(column, row, "o", color=color, markersize=3 * probability)
                continue
            ax.arrow(
                column,
                row,
                0.3 * probability * right,
                0.3 * probability * down,
                color=color,
                width=0.02,
                head_width=0.16 * probability,
                head_length=0.12 * probability,
            )


def spread(
    ax: "Axes",
    x: np.ndarray,
    ys: np.ndarray,
    *,
    label: str | None = None,
    color: str | None = None,
    center: str = "median",
    band: tuple[float, float] = (0.25, 0.75),
    **line: Any,
) -> "PolyCollection":
    """Draw what several seeds gave: a line through the middle and a band around it.

    Args:
        ax: where to draw.
        x: (T,) positions.
        ys: (seeds, T) one row a seed.
        label, color: of the line; the band takes the same colour.
        center: "median" or "mean".
        band: the quantiles over seeds between which the band lies; (0, 1) is all of them.
        **line: passed to `Axes.plot`.

    Returns:
        The band.

    Raises:
        FigureError: the shapes do not match, or `center` is neither of the two.
    """
    x, ys = np.asarray(x), np.asarray(ys, dtype=float)
    if ys.ndim != 2 or ys.shape[1] != len(x):
        raise FigureError(
            f"ys has shape {ys.shape}, but a spread needs (seeds, {len(x)}): one row for each seed"
        )
    if center not in ("median", "mean"):
        raise FigureError(f'center={center!r} is neither "median" nor "mean"')
    middle = np.median(ys, axis=0) if center == "median" else np.mean(ys, axis=0)
    low, high = np.quantile(ys, band, axis=0)
    (drawn,) = ax.plot(x, middle, label=label, color=color, **line)
    return ax.fill_between(x, low, high, color=drawn.get_color(), alpha=0.2, linewidth=0)


def shared_scale(*values: np.ndarray) -> dict[str, float]:
    """One colour scale for maps that are compared: `heatmap(ax, v, **shared_scale(v, w))`.

    Returns:
        vmin and vmax, over all that is finite (a wall is NaN).

    Raises:
        FigureError: nothing is finite.
    """
    flat = np.concatenate([np.asarray(v, dtype=float).ravel() for v in values])
    flat = flat[np.isfinite(flat)]
    if not len(flat):
        raise FigureError("no value is finite, so the maps have no scale; look at them first")
    return {"vmin": float(flat.min()), "vmax": float(flat.max())}


def color_bar(
    image: "AxesImage", axes: "Axes | Sequence[Axes] | np.ndarray", unit: str
) -> "Colorbar":
    """Add a colour bar that says what its numbers are.

    Args:
        image: of `heatmap`; of maps that share a scale, any of them.
        axes: the axes that it stands beside, one or all that it speaks for.
        unit: what is shown, with its unit: "value, reward units".

    Raises:
        FigureError: `unit` is empty.
    """
    if not unit.strip():
        raise FigureError('a colour bar needs its unit: color_bar(image, ax, "steps to the goal")')
    listed: list[Axes] = np.ravel(np.asarray(axes, dtype=object)).tolist()
    return listed[0].figure.colorbar(image, ax=listed, label=unit, shrink=0.8)


# Diagrams -----------------------------------------------------------------------------------------

_NODE = {"boxstyle": "round,pad=0.45", "facecolor": "#eef4fa", "edgecolor": COLORS["blue"]}


def _arrow(
    ax: "Axes",
    start: tuple[float, float],
    end: tuple[float, float],
    label: str,
    bend: float,
    away: float,
) -> None:
    """An arrow between two points, its label beside the middle of the bow."""
    ax.annotate(
        "",
        xy=end,
        xytext=start,
        arrowprops={
            "arrowstyle": "-|>",
            "color": "0.25",
            "shrinkA": away,
            "shrinkB": away,
            "connectionstyle": f"arc3,rad={bend}",
        },
    )
    (x0, y0), (x1, y1) = start, end
    # A bow of curvature `bend` stands off the chord by half of it, to the right of its direction.
    x, y = (x0 + x1) / 2 + bend / 2 * (y1 - y0), (y0 + y1) / 2 - bend / 2 * (x1 - x0)
    if label:
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        ax.text(x, y, label, ha="center", va="center", fontsize=9, bbox=paper)


def draw_states(
    ax: "Axes",
    places: Mapping[str, tuple[float, float]],
    moves: Sequence[tuple[str, str, str]],
) -> None:
    """Draw a small Markov decision process: states as circles, moves as arrows with their labels.

    Args:
        ax: where to draw.
        places: (x, y) of each state by its name; neighbours some 2 units apart.
        moves: (from, to, label), for instance ("fresh", "tired", "work: 0.5, reward 2"). Moves to
            and fro bend away from each other; a move from a state to itself is a loop above it.

    Raises:
        FigureError: a move names a state that has no place.
    """
    from matplotlib.patches import Circle

    radius = 0.42
    for name in {end for start, stop, _ in moves for end in (start, stop)} - set(places):
        raise FigureError(f"a move names {name!r}, which has no place; give one in `places`")
    for name, (x, y) in places.items():
        ax.add_patch(Circle((x, y), radius, facecolor="#eef4fa", edgecolor=COLORS["blue"], lw=1.5))
        ax.text(x, y, name, ha="center", va="center")
    for start, end, label in moves:
        (x0, y0), (x1, y1) = places[start], places[end]
        if start == end:
            top = y0 + radius
            arrow = {"arrowstyle": "-|>", "color": "0.25", "connectionstyle": "arc3,rad=-1.4"}
            ax.annotate("", xy=(x0 + 0.16, top), xytext=(x0 - 0.16, top), arrowprops=arrow)
            ax.text(x0, top + 0.5, label, ha="center", va="bottom", fontsize=9)
            continue
        length = float(np.hypot(x1 - x0, y1 - y0))
        inset = radius / length
        a = (x0 + inset * (x1 - x0), y0 + inset * (y1 - y0))
        b = (x1 - inset * (x1 - x0), y1 - inset * (y1 - y0))
        _arrow(ax, a, b, label, bend=-0.3, away=1)
    xs, ys = np.array(list(places.values()), dtype=float).T
    ax.set(xlim=(xs.min() - 1, xs.max() + 1), ylim=(ys.min() - 1, ys.max() + 1.4))
    ax.set_aspect("equal")
    ax.axis("off")


def draw_loop(ax: "Axes", steps: Sequence[str], arrows: Sequence[str] = ()) -> None:
    """Draw a loop: boxes on a circle, clockwise from the top, each with an arrow to the next.

    Args:
        ax: where to draw.
        steps: what stands in the boxes; break lines with a newline.
        arrows: what goes from each box to the next, as many as there are boxes; or nothing.

    Raises:
        FigureError: fewer than two boxes, or another number of arrows.
    """
    if len(steps) < 2 or (arrows and len(arrows) != len(steps)):
        raise FigureError(
            f"a loop of {len(steps)} boxes with {len(arrows)} words for its arrows; give two boxes "
            "or more, and one word for each arrow or none"
        )
    angle = np.pi / 2 - 2 * np.pi * np.arange(len(steps)) / len(steps)
    places = [(1.6 * float(np.cos(a)), float(np.sin(a))) for a in angle]
    for k, (x, y) in enumerate(places):
        after = places[(k + 1) % len(steps)]
        _arrow(ax, (x, y), after, arrows[k] if arrows else "", bend=-0.15, away=34)
    for (x, y), text in zip(places, steps, strict=True):
        ax.text(x, y, text, ha="center", va="center", bbox=_NODE, zorder=3)
    ax.set(xlim=(-2.4, 2.4), ylim=(-1.4, 1.4))
    ax.axis("off")
