"""Worlds that are both a Gymnasium environment and a `TabularMDP`.

Importing this package registers `irlbook/GridWorld-v0`, `irlbook/ObjectWorld-v0`,
`irlbook/BinaryWorld-v0`, `irlbook/Garnet-v0`, `irlbook/Chain-v0` and `irlbook/BitFlip-v0`.
Beside each stands a plain function that returns the MDP itself: `gridworld`, `objectworld`,
`binaryworld`, `garnet`, `chain`, `bit_flip`. (Where a module has the same name, as `gridworld`
does, `irlbook.envs.gridworld` is the function; `from irlbook.envs.gridworld import ...` still
reaches into the module.)

`irlbook/FixedHorizonCartPole-v0` is registered, too: a CartPole that goes on after a fall.
"""

import gymnasium as _gymnasium

from irlbook._front import front
from irlbook.envs.base import TabularEnv, World
from irlbook.envs.binaryworld import BinaryWorld, binaryworld
from irlbook.envs.bitflip import bit_flip, bits
from irlbook.envs.chain import chain, cloning_chain
from irlbook.envs.features import coordinate_features, macrocell_features, radial_features
from irlbook.envs.garnet import garnet
from irlbook.envs.gridworld import coordinates, grid_transitions, gridworld
from irlbook.envs.objectworld import ObjectWorld, objectworld

__all__, __getattr__, __dir__ = front(
    __name__,
    {
        "base": [
            "CellsEnv",
            "TabularEnv",
            "World",
            "checked_int",
            "checked_probability",
            "checked_reward",
            "uniform_start",
        ],
        "binaryworld": [
            "BinaryWorld",
            "BinaryWorldEnv",
            "binaryworld_reward",
            "neighbourhood_features",
        ],
        "bitflip": ["BitFlipEnv", "bit_flip", "bits"],
        "cartpole": ["FixedHorizonCartPole", "FixedHorizonCartPoleVector", "upright"],
        "chain": ["ChainEnv", "cloning_chain", "combination_lock", "noisy_chain"],
        "doors": ["key_and_door", "random_layout", "two_rooms"],
        "features": ["coordinate_features", "macrocell_features", "radial_features"],
        "garnet": ["GarnetEnv"],
        "gridworld": ["GridWorldEnv", "coordinates", "grid_transitions", "wall_mask"],
        "labyrinth": ["Labyrinth", "corridors", "positions", "thirsty"],
        "objectworld": ["ObjectWorld", "ObjectWorldEnv", "nearest_distance", "objectworld_reward"],
        "road": [],
    },
)

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

if "irlbook/FixedHorizonCartPole-v0" not in _gymnasium.registry:
    _gymnasium.register(
        "irlbook/FixedHorizonCartPole-v0",
        entry_point="irlbook.envs.cartpole:FixedHorizonCartPole",
        vector_entry_point="irlbook.envs.cartpole:FixedHorizonCartPoleVector",
        max_episode_steps=200,
    )
