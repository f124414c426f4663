"""Figures of the book: one palette, one way to show them, and the pictures that recur.

Every figure is stored as a small png with a text alternative, drawn in colours that colour-blind
readers can tell apart, and comes out byte for byte the same when it is drawn again.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from irlbook.errors import FigureError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
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


def show(fig: "Figure", alt: str) -> None:
    """Show `fig` in the notebook with its text alternative, then close it.

    Args:
        fig: the figure; it is closed, so that no backend shows it a second time.
        alt: one sentence for a reader who cannot see it: what is drawn and what it shows.

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
    png = to_png(fig)
    plt.close(fig)
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return
    if get_ipython() is None:
        return
    display(
        {"image/png": png, "text/plain": f"Figure: {alt}"},
        raw=True,
        metadata={"image/png": {"alt": alt}},
    )


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
