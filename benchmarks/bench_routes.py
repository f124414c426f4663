"""One reward from walks to hundreds of goals on a road network: the exact joint fit, on one core.

    python benchmarks/bench_routes.py [--side 36] [--goals 300] [--walks 2000]

The network is synthetic: a jittered grid of crossings with streets in both directions. A state is a
link (a street in one direction), an action the turn at its end. Four features: travel time, left
turns, U-turns, and a constant a link. Walks are sampled from the model at known weights, so the fit
can be checked: it must find them within its own standard errors. In the same run the gradient must
agree with a fit that solves goal by goal, in logs and without any sharing (at some goals), and with
finite differences.
"""

from __future__ import annotations

import argparse
import time

import common
import numpy as np
from scipy import sparse

NAMES = ("travel time", "left turn", "U-turn", "link")
TRUTH = np.array([-2.0, -0.5, -3.0, -0.4])
START = np.array([-3.0, 0.0, 0.0, 0.0])  # a cost of time, so that the sum over paths is finite


def road_network(side: int, rng: np.random.Generator):
    """A world of links, its features (S, A, 4) and which turns there are, (S, A) of 0 and 1."""
    from irlbook.mdp import TabularMDP

    row, column = np.divmod(np.arange(side * side), side)
    place = np.column_stack([column, row]) + rng.uniform(-0.3, 0.3, size=(side * side, 2))
    across = np.arange(side * side).reshape(side, side)
    streets = np.concatenate(
        [
            np.column_stack([across[:, :-1].ravel(), across[:, 1:].ravel()]),
            np.column_stack([across[:-1].ravel(), across[1:].ravel()]),
        ]
    )
    links = np.concatenate([streets, streets[:, ::-1]])  # (S, 2) from, to
    ahead = place[links[:, 1]] - place[links[:, 0]]
    speed = rng.choice([0.8, 1.0, 1.5], size=len(streets), p=[0.3, 0.5, 0.2])
    minutes = np.linalg.norm(ahead, axis=1) / np.tile(speed, 2)
    n_links, n_actions = len(links), 4
    leaving = [np.flatnonzero(links[:, 0] == node) for node in range(side * side)]
    target = np.repeat(np.arange(n_links)[:, None], n_actions, axis=1)
    allowed = np.zeros((n_links, n_actions))
    for link in range(n_links):
        turns = leaving[links[link, 1]]
        target[link, : len(turns)], allowed[link, : len(turns)] = turns, 1.0
    transitions = sparse.csr_array(
        (np.ones(target.size), target.ravel(), np.arange(target.size + 1)),
        shape=(target.size, n_links),
    )
    cross = ahead[:, None, 0] * ahead[target, 1] - ahead[:, None, 1] * ahead[target, 0]
    along = (ahead[:, None] * ahead[target]).sum(axis=2)
    angle = np.degrees(np.arctan2(cross, along))
    back = links[target, 1] == links[:, None, 0]
    left = (angle > 40) & ~back
    features = np.stack([minutes[target], left, back, np.ones(target.shape)], axis=2)
    features *= allowed[:, :, None]
    world = TabularMDP.create(transitions, np.zeros(n_links), discount=1.0)
    return world, features, allowed


def sample_walks(world, features, allowed, n_goals: int, n_walks: int, rng: np.random.Generator):
    """Walks of the model at TRUTH, to random goals from random links."""
    from irlbook.irl.groups import Group
    from irlbook.irl.maxent import end_in
    from irlbook.irl.maxent_paths import PathModel
    from irlbook.mdp import Trajectories, sample_trajectories

    goals = rng.choice(world.n_states, size=n_goals, replace=False)
    number = np.bincount(rng.integers(n_goals, size=n_walks), minlength=n_goals)
    pairs = []
    for goal, n in zip(goals, number, strict=True):
        if not n:
            continue
        start = np.full(world.n_states, 1.0 / (world.n_states - 1))
        start[goal] = 0.0
        group = Group(np.zeros(4), 1, int(goal), start)
        model = PathModel(world, features, [group], None, 1.0, allowed)
        policy = model.policy(model.evaluate(TRUTH).plan)[0]
        ends = np.arange(world.n_states) == goal
        pairs += list(sample_trajectories(end_in(world, ends, start), policy, int(n), 5_000, rng))
    return Trajectories.from_list(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=36)
    parser.add_argument("--goals", type=int, default=300)
    parser.add_argument("--walks", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from irlbook.irl.groups import group_by_goal
    from irlbook.irl.maxent_paths import PathModel, fit_max_ent_paths, path_dual

    rng = np.random.default_rng(options.seed)
    world, features, allowed = road_network(options.side, rng)
    walks = sample_walks(world, features, allowed, options.goals, options.walks, rng)
    groups = group_by_goal(walks, world, features, reference=allowed)
    print(
        f"{world.n_states} links, {int(allowed.sum())} turns, {len(groups)} goals, {len(walks)} "
        f"walks of {walks.lengths.mean():.0f} links on average",
        flush=True,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    groups = group_by_goal(walks, world, features, reference=allowed)
    grouped = time.perf_counter() - wall
    result = fit_max_ent_paths(world, features, groups, reference=allowed, initial_weights=START)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    error = result.standard_errors
    common.table(
        ["feature", "true", "fitted", "standard error"],
        [
            [name, f"{true:g}", f"{w:.4f}", f"{e:.4f}"]
            for name, true, w, e in zip(NAMES, TRUTH, result.weights, error, strict=True)
        ],
    )
    distance = result.weights - TRUTH  # chi-squared with 4 degrees of freedom: 18.5 at 0.1 %
    surprise = float(distance @ np.linalg.solve(result.covariance, distance))
    assert surprise < 18.5, surprise
    assert result.gap <= 1e-6, result.gap

    begin = time.perf_counter()
    value, gradient = path_dual(result.weights, world, features, groups, reference=allowed)
    one = time.perf_counter() - begin
    numeric = [
        (
            path_dual(result.weights + step, world, features, groups, reference=allowed)[0]
            - path_dual(result.weights - step, world, features, groups, reference=allowed)[0]
        )
        / 2e-4
        for step in 1e-4 * np.eye(4)
    ]
    finite = float(np.abs(gradient - numeric).max())
    assert finite <= 1e-5, finite
    few = groups[:: max(1, len(groups) // 10)]
    together, apart = (PathModel(world, features, few, None, 1.0, allowed) for _ in range(2))
    apart.shared.solve = lambda *_: None  # goal by goal, in logs
    shared = together.evaluate(TRUTH)
    begin = time.perf_counter()
    alone = apart.evaluate(TRUTH)
    by_goal = (time.perf_counter() - begin) / len(few)
    difference = max(
        abs(shared.value - alone.value), float(np.abs(shared.gradient - alone.gradient).max())
    )
    assert difference <= 1e-9, difference
    print(
        f"joint fit: {common.show_seconds(wall)} ({common.show_seconds(cpu)} of CPU), of it "
        f"{common.show_seconds(grouped)} to group; {result.report.iterations} Newton steps, gap "
        f"{result.gap:.1e}, {result.report.method}\n"
        f"value and gradient: {common.show_seconds(one)} for all goals; goal by goal, in logs, "
        f"{common.show_seconds(by_goal)} each; they differ by {difference:.1e}, and from finite "
        f"differences by {finite:.1e}\nlog-likelihood {-value * len(walks):.2f}; distance to the "
        f"true weights {surprise:.2f} (chi-squared, 4 degrees of freedom)",
        flush=True,
    )
    common.save(
        "routes",
        {
            "links": world.n_states,
            "turns": int(allowed.sum()),
            "goals": len(groups),
            "walks": len(walks),
            "mean length": walks.lengths.mean(),
            "fit seconds": wall,
            "fit cpu seconds": cpu,
            "grouping seconds": grouped,
            "newton steps": result.report.iterations,
            "gap": result.gap,
            "gradient seconds": one,
            "goal by goal seconds each": by_goal,
            "shared against goal by goal": difference,
            "against finite differences": finite,
            "weights": result.weights.tolist(),
            "standard errors": error.tolist(),
            "chi-squared of the true weights": surprise,
            "log-likelihood": -value * len(walks),
        },
    )


if __name__ == "__main__":
    main()
