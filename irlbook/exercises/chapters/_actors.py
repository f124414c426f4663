"""The policy that labs 2 and 8 ask for: a small network, returned as weights and played here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irlbook.exercises.expect import as_array, expect, expect_type

__all__ = ["Layers", "act", "expect_actor"]

Layers = Mapping[str, tuple[int, int]]
"""Name of a linear layer -> (outputs, inputs), from the observation to the logits of actions."""


def expect_actor(state: Any, layers: Layers) -> dict[str, np.ndarray]:
    """Fail unless it is the `state_dict` of an actor with these layers; returns its weights."""
    expect_type(state, dict, hint="return agent.actor.state_dict()")
    weights = {}
    for name, shape in layers.items():
        for part, want in ((f"{name}.weight", shape), (f"{name}.bias", shape[:1])):
            expect(
                part in state,
                property="it returns the weights of the actor",
                hint="return agent.actor.state_dict(), of the network as it was given",
                detail=f"there is no {part!r}",
            )
            weights[part] = as_array(state[part], want, what=part)
    return weights


def act(
    weights: Mapping[str, np.ndarray],
    layers: Layers,
    observations: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """(n,) actions drawn from the policy for observations (n, O); tanh between the layers."""
    *inner, last = layers
    h = observations
    for name in inner:
        h = np.tanh(h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])
    logits = h @ weights[f"{last}.weight"].T + weights[f"{last}.bias"]
    return np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
