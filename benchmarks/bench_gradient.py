"""One exact gradient of maximum causal entropy IRL: soft values, policy, occupancy, finite horizon.

    python benchmarks/bench_gradient.py [--rounds 15]

Peer: `imitation` (mce_partition_fh, then mce_occupancy_measures). Problems: side × side gridworlds
with slip, five actions, ten state features, horizon 4·side, no discount; and a garnet.
Both sides are timed in turns in one process. In the same run their gradients must agree to 1e-10.

Mind: imitation's occupancy measure has horizon + 1 rows (the state where the episode ends counts
as visited) although its soft values have horizon rows, and it ignores `discount` when it makes the
policy itself. Here its policy is made explicitly and the last row is left out, on our time,
so that both sides compute the same gradient.
"""

from __future__ import annotations

import argparse

import common
import numpy as np

AGREE = 1e-10


def problems() -> dict[str, tuple]:
    """Name -> (transitions, features, horizon)."""
    made = {}
    for side in (5, 20, 32):
        rng = np.random.default_rng(side)
        made[f"grid {side}×{side}"] = (
            common.grid_transitions(side),
            common.bump_features(side, 10, rng),
            4 * side,
        )
    rng = np.random.default_rng(1)
    made["garnet 1,000"] = (common.garnet_transitions(1000, rng), rng.normal(size=(1000, 10)), 100)
    return made


def imitation_gradient(transitions, features, horizon, weights, expert):
    """A function that computes the gradient with imitation's own two passes."""
    mce_irl = common.peer("imitation.algorithms.mce_irl", "imitation")
    if mce_irl is None:
        return None
    from seals.base_envs import TabularModelPOMDP

    n_states = transitions.shape[1]
    env = TabularModelPOMDP(
        transition_matrix=transitions.toarray().reshape(n_states, -1, n_states),
        observation_matrix=features,
        reward_matrix=np.zeros(n_states),
        horizon=horizon,
        initial_state_dist=np.eye(1, n_states)[0],
    )

    def gradient() -> np.ndarray:
        reward = features @ weights
        _, _, policy = mce_irl.mce_partition_fh(env, reward=reward)
        by_time, visits = mce_irl.mce_occupancy_measures(env, reward=reward, pi=policy)
        return features.T @ (visits - by_time[-1]) - expert

    return gradient


def our_gradient(transitions, features, horizon, weights, expert):
    """A function that computes the same gradient with irlbook."""
    from irlbook.irl.maxent import causal_dual

    mdp = common.make_mdp(transitions, np.zeros(transitions.shape[1]), discount=1.0)
    return lambda: causal_dual(weights, mdp, features, expert, horizon=horizon)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    rows, results = [], {}
    for name, (transitions, features, horizon) in problems().items():
        rng = np.random.default_rng(0)
        weights, expert = rng.normal(size=10), np.zeros(10)
        case = (transitions, features, horizon, weights, expert)
        sides = {"irlbook": our_gradient(*case)}
        theirs = imitation_gradient(*case)
        record = {"states": transitions.shape[1], "horizon": horizon}
        if theirs is not None:
            sides["imitation"] = theirs
            record["largest difference"] = np.abs(sides["irlbook"]() - theirs()).max()
            assert record["largest difference"] <= AGREE, (name, record["largest difference"])
        seconds = common.interleave(sides, rounds)
        record |= {f"{side} seconds": common.spread(times) for side, times in seconds.items()}
        row = [name, horizon, common.show_seconds(np.median(seconds["irlbook"]))]
        if theirs is not None:
            record["ratio"] = common.spread(seconds["imitation"] / seconds["irlbook"])
            row += [
                common.show_seconds(np.median(seconds["imitation"])),
                common.show_ratio(record["ratio"]),
                f"{record['largest difference']:.1e}",
            ]
        rows.append(row)
        results[name] = record
    common.table(
        ["problem", "horizon", "irlbook", "imitation", "ratio (quartiles)", "difference"],
        [row + ["–"] * (6 - len(row)) for row in rows],
    )
    common.save("gradient", results)


if __name__ == "__main__":
    main()
