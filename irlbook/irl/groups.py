"""Demonstrations that share a reward, but not a goal or a start: a traveller's log.

A `Group` holds the walks that end in one place. Groups go where `expert_features` go, in
`fit_max_ent_paths` and `fit_max_causal_ent`: the reward is fitted to all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from scipy import sparse

from irlbook.errors import InvalidMDPError, InvalidTrajectoryError, shown
from irlbook.irl.dual import Features, check_expert
from irlbook.mdp import TabularMDP, Trajectories, as_start
from irlbook.planning import log_reference_measure

__all__ = ["CheckedGroup", "Group", "are_groups", "check_groups", "group_by_goal", "group_by_start"]


@dataclass(frozen=True)
class Group:
    """Walks to one goal.

    Attributes:
        expert_features: (K,) mean over the walks of the sum of the features along each; what is
            passed in the goal itself does not count.
        count: how many walks.
        goal: the state, or states, in which these walks end, and which they enter only once;
            None: the terminal states of the world. A goal takes their place.
        start: (S,) distribution of the first states of these walks, or one state; None: the
            start of the world.
    """

    expert_features: Any
    count: float = 1.0
    goal: int | Sequence[int] | None = None
    start: Any = None


@dataclass(frozen=True)
class CheckedGroup:
    """A group in standard form.

    Attributes:
        expert: (K,). share: of all walks, so that shares sum to 1. ends: (S,) bool. start: (S,).
    """

    expert: np.ndarray
    share: float
    ends: np.ndarray
    start: np.ndarray


def are_groups(given: Any) -> TypeGuard[Sequence[Group]]:
    """Whether `given` is a list of groups, and not an array of feature expectations."""
    return (
        isinstance(given, list | tuple)
        and len(given) > 0
        and all(isinstance(one, Group) for one in given)
    )


def check_groups(groups: Sequence[Group], mdp: TabularMDP, count: int) -> list[CheckedGroup]:
    """The groups in standard form.

    Raises:
        InvalidTrajectoryError: a count that is not positive, or a start in the goal.
        InvalidMDPError: or one of its kinds: a goal or a start that is no state of the world, or
            no goal in a world without terminal states.
        ShapeError: feature expectations of another length.
    """
    counts = np.array([group.count for group in groups], dtype=float)
    if not ((counts > 0) & (counts < np.inf)).all():
        bad = int(np.argmin((counts > 0) & (counts < np.inf)))
        raise InvalidTrajectoryError(
            f"group {bad} counts {groups[bad].count} walks; leave out groups without walks."
        )
    checked = []
    for i, (group, share) in enumerate(zip(groups, counts / counts.sum(), strict=True)):
        ends = _ends(group.goal, mdp, i)
        start = mdp.start if group.start is None else as_start(group.start, ends, mdp.n_states)
        if start[ends].any():
            state = int(np.flatnonzero(ends & (start > 0))[0])
            raise InvalidTrajectoryError(
                f"group {i} starts in its goal, state {state}, with probability "
                f"{start[state]:.3g}; a walk makes at least one move. Leave such walks out."
            )
        checked.append(CheckedGroup(check_expert(group.expert_features, count), share, ends, start))
    return checked


def _ends(goal: int | Sequence[int] | None, mdp: TabularMDP, i: int) -> np.ndarray:
    """(S,) bool, where the walks of group `i` end."""
    if goal is None:
        if not mdp.terminal.any():
            raise InvalidMDPError(f"group {i} names no goal, and the world has no terminal state.")
        return mdp.terminal
    states = np.atleast_1d(np.asarray(goal))
    whole = states.ndim == 1 and states.dtype.kind in "iu" and states.size > 0
    if not whole or states.min() < 0 or states.max() >= mdp.n_states:
        raise InvalidMDPError(
            f"group {i} has the goal {shown(goal)}; expected one or more states of "
            f"0..{mdp.n_states - 1}."
        )
    ends = np.zeros(mdp.n_states, dtype=bool)
    ends[states] = True
    return ends


def group_by_goal(
    demonstrations: Trajectories, mdp: TabularMDP, features: Any, *, reference: Any = None
) -> list[Group]:
    """One group for each state in which a demonstration ends, in the order of these states.

    Args:
        features: (S, K) or (S, A, K). reference: (S, A) of the model that is to be fitted, whose
            zeros forbid actions.

    Raises:
        InvalidTrajectoryError: an impossible move, a forbidden action, or a walk that passes its
            goal before it ends there; named by trajectory and step.
    """
    ends = demonstrations.validate(mdp).last_states
    here = demonstrations.acting_states
    passed = np.flatnonzero(here == np.repeat(ends, demonstrations.lengths))
    if passed.size:
        i = int(np.repeat(np.arange(len(demonstrations)), demonstrations.lengths)[passed[0]])
        raise InvalidTrajectoryError(
            f"trajectory {i} passes its goal, state {ends[i]}, at step "
            f"{demonstrations.steps[passed[0]]} and ends there later. Cut it where it first "
            "arrives, or leave it out."
        )
    return _group(demonstrations, mdp, features, reference, ends, goals=True)


def group_by_start(
    demonstrations: Trajectories, mdp: TabularMDP, features: Any, *, reference: Any = None
) -> list[Group]:
    """One group for each first state; all end in the terminal states of the world.

    Args and Raises: as in `group_by_goal`; InvalidTrajectoryError: a walk that does not end.
    """
    lasts = demonstrations.validate(mdp).last_states
    if not mdp.terminal[lasts].all():
        i = int(np.argmin(mdp.terminal[lasts]))
        raise InvalidTrajectoryError(
            f"trajectory {i} stops in state {lasts[i]}, which is not terminal. Leave it out, or "
            "group by goal."
        )
    firsts = demonstrations.first_states
    return _group(demonstrations, mdp, features, reference, firsts, goals=False)


def _group(
    demonstrations: Trajectories,
    mdp: TabularMDP,
    features: Any,
    reference: Any,
    keys: np.ndarray,
    goals: bool,
) -> list[Group]:
    phi = Features(mdp, features)
    pairs = demonstrations.acting_states * mdp.n_actions + demonstrations.actions
    log_reference = log_reference_measure(mdp, reference, 1.0, dead=True)
    if log_reference is not None:
        forbidden = np.flatnonzero(np.isneginf(log_reference.reshape(-1)[pairs]))
        if forbidden.size:
            owner = np.repeat(np.arange(len(demonstrations)), demonstrations.lengths)
            step = int(forbidden[0])
            raise InvalidTrajectoryError(
                f"trajectory {owner[step]}, step {demonstrations.steps[step]}: action "
                f"{demonstrations.actions[step]} in state {demonstrations.acting_states[step]} is "
                "forbidden by the reference."
            )
    names, owner = np.unique(keys, return_inverse=True)
    counts = np.bincount(owner)
    rows = demonstrations.acting_states if phi.on_states else pairs
    visits = sparse.csr_array(
        (np.ones(len(rows)), (np.repeat(owner, demonstrations.lengths), rows)),
        shape=(len(names), phi.matrix.shape[0]),
    )
    sums = visits @ phi.matrix
    means = (sums.toarray() if sparse.issparse(sums) else sums) / counts[:, None]
    starts = np.zeros((len(names), mdp.n_states))
    np.add.at(starts, (owner, demonstrations.first_states), 1.0)
    starts /= counts[:, None]
    return [
        Group(mean, float(count), int(name) if goals else None, start)
        for mean, count, name, start in zip(means, counts, names, starts, strict=True)
    ]
