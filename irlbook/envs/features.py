"""Features of grid cells, (S, K) each, for rewards r = features @ w."""

import numpy as np

from irlbook.envs.base import checked_int
from irlbook.errors import InvalidEnvironmentError

__all__ = ["coordinate_features", "macrocell_features", "radial_features"]


def macrocell_features(height: int, width: int, cell: int) -> np.ndarray:
    """(S, K) which square block of `cell` by `cell` cells a state lies in, as 0 and 1.

    The features of Abbeel and Ng (2004, section 5.1): 128 by 128 cells, blocks of 16, K = 64.
    Blocks are numbered row by row; those at the far edges may be smaller.
    """
    height, width = checked_int("height", height, 1), checked_int("width", width, 1)
    cell = checked_int("cell", cell, 1)
    across = -(-width // cell)
    row, column = np.divmod(np.arange(height * width), width)
    block = row // cell * across + column // cell
    features = np.zeros((height * width, int(block[-1]) + 1))
    features[np.arange(height * width), block] = 1.0
    return features


def coordinate_features(height: int, width: int) -> np.ndarray:
    """(S, 2) row and column of each state, scaled to [0, 1]."""
    height, width = checked_int("height", height, 1), checked_int("width", width, 1)
    row, column = np.divmod(np.arange(height * width), width)
    return np.column_stack([row / max(height - 1, 1), column / max(width - 1, 1)])


def radial_features(
    height: int, width: int, n_features: int, rng: np.random.Generator, *, radius: float = 0.25
) -> np.ndarray:
    """(S, K) smooth bumps exp(-d^2 / (2 radius^2)) around K random points of the grid.

    d is the distance from the point in units of the longer side. A handy way to get K smooth
    features of any grid for an experiment.

    Args:
        n_features: K.
        radius: width of a bump, > 0.
    """
    height, width = checked_int("height", height, 1), checked_int("width", width, 1)
    n_features = checked_int("n_features", n_features, 1)
    if not radius > 0 or not np.isfinite(radius):
        raise InvalidEnvironmentError(f"radius is {radius!r}. Give a number above 0.")
    side = max(height, width)
    centres = rng.random((n_features, 2)) * (height, width) - 0.5  # (K, 2)
    row, column = np.arange(height), np.arange(width)
    down = np.exp(-(((row[:, None] - centres[:, 0]) / (side * radius)) ** 2) / 2)  # (H, K)
    across = np.exp(-(((column[:, None] - centres[:, 1]) / (side * radius)) ** 2) / 2)  # (W, K)
    return (down[:, None] * across[None]).reshape(height * width, n_features)
