"""irlbook: from a gridworld to aligning a language model through inverse RL.

Every room is to be had by its name, and is loaded when it is first used:

>>> import irlbook
>>> mdp = irlbook.envs.chain(3)
>>> irlbook.planning.value_iteration(mdp).values.shape
(3,)
"""

from irlbook._front import front

__version__ = "1.0.0"

_ROOMS = """
authoring claims cli data decoding display envs errors exercises imitation irl lm mdp metrics moves
planning plotting posttraining preferences profiles rl run_plots stats tables tasks training
"""

__all__, __getattr__, __dir__ = front(
    __name__, {**{room: [] for room in _ROOMS.split()}, "authoring": ["doctor"]}
)
