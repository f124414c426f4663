"""Worlds that are both a Gymnasium environment and a `TabularMDP`.

Importing this package registers `irlbook/GridWorld-v0`, `irlbook/ObjectWorld-v0`,
`irlbook/BinaryWorld-v0`, `irlbook/Garnet-v0`, `irlbook/Chain-v0` and `irlbook/BitFlip-v0`.
Beside each stands a plain function that returns the MDP itself: `gridworld`, `objectworld`,
`binaryworld`, `garnet`, `chain`, `bit_flip`. (Where a module has the same name, as `gridworld`
does, `irlbook.envs.gridworld` is the function; `from irlbook.envs.gridworld import ...` still
reaches into the module.)
"""

import gymnasium as _gymnasium

from irlbook.envs.base import TabularEnv, World
from irlbook.envs.binaryworld import BinaryWorld, binaryworld
from irlbook.envs.bitflip import bit_flip, bits
from irlbook.envs.chain import chain, cloning_chain
from irlbook.envs.features import coordinate_features, macrocell_features, radial_features
from irlbook.envs.garnet import garnet
from irlbook.envs.gridworld import coordinates, grid_transitions, gridworld
from irlbook.envs.objectworld import ObjectWorld, objectworld

__all__ = [
    "BinaryWorld",
    "ObjectWorld",
    "TabularEnv",
    "World",
    "binaryworld",
    "bit_flip",
    "bits",
    "chain",
    "cloning_chain",
    "coordinate_features",
    "coordinates",
    "garnet",
    "grid_transitions",
    "gridworld",
    "macrocell_features",
    "objectworld",
    "radial_features",
]

_ENTRY_POINTS = {
    "GridWorld": "irlbook.envs.gridworld:GridWorldEnv",
    "ObjectWorld": "irlbook.envs.objectworld:ObjectWorldEnv",
    "BinaryWorld": "irlbook.envs.binaryworld:BinaryWorldEnv",
    "Garnet": "irlbook.envs.garnet:GarnetEnv",
    "Chain": "irlbook.envs.chain:ChainEnv",
    "BitFlip": "irlbook.envs.bitflip:BitFlipEnv",
}
IDS = tuple(f"irlbook/{name}-v0" for name in _ENTRY_POINTS)

for _name, _entry_point in _ENTRY_POINTS.items():
    if f"irlbook/{_name}-v0" not in _gymnasium.registry:
        _gymnasium.register(f"irlbook/{_name}-v0", entry_point=_entry_point, max_episode_steps=200)
