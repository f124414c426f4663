"""Planning: optimal values of a 64×64 gridworld, discount 0.99, against quantecon's best method.

    python benchmarks/bench_planning.py [--rounds 9] [--side 64] [--mdptoolbox]

Peers: `quantecon` (DiscreteDP in its sparse state-action form: value iteration, policy iteration,
modified policy iteration) and, with --mdptoolbox, `pymdptoolbox` (value iteration, slow). Every
method is asked for values within 1e-6 of the optimum, and every one is checked against an exact
solve in the same run. Building the problem is outside the clock on all sides. The ratio compares
the fastest method of the peer with the fastest of the book.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import common
import numpy as np
import scipy.sparse
import scipy.sparse.linalg

ACCURACY = 1e-6


def exact_values(transitions, reward: np.ndarray, discount: float) -> np.ndarray:
    """(S,) optimal values by plain policy iteration with a direct solve: the referee."""
    n_states = len(reward)
    chosen = np.zeros(n_states, dtype=int)
    while True:
        rows = transitions[np.arange(n_states) * common.N_ACTIONS + chosen]
        system = scipy.sparse.eye_array(n_states, format="csc") - discount * rows.tocsc()
        values = scipy.sparse.linalg.spsolve(system, reward)
        ahead = (transitions @ values).reshape(n_states, -1)
        here = ahead[np.arange(n_states), chosen]
        better = ahead.max(axis=1) > here + 1e-12
        if not better.any():
            return values
        chosen = np.where(better, ahead.argmax(axis=1), chosen)


def our_methods(transitions, reward, discount) -> dict[str, Callable[[], np.ndarray]]:
    from irlbook import planning

    mdp = common.make_mdp(transitions, reward, discount)
    solvers = (
        planning.value_iteration,
        planning.policy_iteration,
        planning.modified_policy_iteration,
    )
    return {
        f"irlbook {solve.__name__}": lambda solve=solve: solve(mdp, tolerance=ACCURACY).values
        for solve in solvers
    }


def quantecon_methods(transitions, reward, discount) -> dict[str, Callable[[], np.ndarray]]:
    markov = common.peer("quantecon.markov", "quantecon")
    if markov is None:
        return {}
    state, action = np.divmod(np.arange(transitions.shape[0]), common.N_ACTIONS)
    problem = markov.DiscreteDP(
        reward[state], scipy.sparse.csr_matrix(transitions), discount, state, action
    )
    # its values are within epsilon / 2 of the optimum,
    # and its policy iteration may alternate between tied policies, so that one is capped
    caps = {
        "value_iteration": 100_000,
        "modified_policy_iteration": 100_000,
        "policy_iteration": 60,
    }
    return {
        f"quantecon {method}": lambda method=method, cap=cap: (
            problem.solve(method=method, epsilon=2 * ACCURACY, max_iter=cap).v
        )
        for method, cap in caps.items()
    }


def mdptoolbox_methods(transitions, reward, discount) -> dict[str, Callable[[], np.ndarray]]:
    toolbox = common.peer("mdptoolbox.mdp", "pymdptoolbox")
    if toolbox is None:
        return {}
    by_action = [
        scipy.sparse.csr_matrix(transitions[a :: common.N_ACTIONS]) for a in range(common.N_ACTIONS)
    ]

    def values() -> np.ndarray:
        solver = toolbox.ValueIteration(
            by_action, reward, discount, epsilon=2 * ACCURACY, max_iter=100_000, skip_check=True
        )
        solver.max_iter = 100_000
        solver.run()
        return np.array(solver.V)

    return {"mdptoolbox value_iteration": values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--discount", type=float, default=0.99)
    parser.add_argument("--mdptoolbox", action="store_true")
    options = parser.parse_args()
    side = options.side
    transitions = common.grid_transitions(side)
    rng = np.random.default_rng(0)
    rewards = {
        "two goals": common.goal_reward(side),
        "ten bumps": common.bump_features(side, 10, rng) @ rng.normal(size=10),
    }
    results: dict[str, object] = {"side": side, "discount": options.discount}
    for name, reward in rewards.items():
        case = (transitions, reward, options.discount)
        sides = our_methods(*case) | quantecon_methods(*case)
        if options.mdptoolbox:
            sides |= mdptoolbox_methods(*case)
        truth = exact_values(*case)
        errors = {method: float(np.abs(run() - truth).max()) for method, run in sides.items()}
        seconds = common.interleave(sides, options.rounds)
        medians = {method: np.median(times) for method, times in seconds.items()}
        record = {
            method: {"error": errors[method], "seconds": common.spread(times)}
            for method, times in seconds.items()
        }
        common.table(
            [f"{side}×{side}, {name}", "median", "quartiles", "error"],
            [
                [
                    method,
                    common.show_seconds(medians[method]),
                    " – ".join(common.show_seconds(q) for q in np.percentile(times, [25, 75])),
                    f"{errors[method]:.1e}",
                ]
                for method, times in seconds.items()
            ],
        )
        wrong = {method: error for method, error in errors.items() if error > ACCURACY}
        assert not wrong, f"not within {ACCURACY}: {wrong}"
        ours = min((m for m in medians if m.startswith("irlbook")), key=medians.get)
        for package in ("quantecon", "mdptoolbox"):
            theirs = [method for method in medians if method.startswith(package)]
            if theirs:
                best = min(theirs, key=medians.get)
                ratio = common.spread(seconds[best] / seconds[ours])
                record[f"{best} / {ours}"] = ratio
                print(f"{best} / {ours}: {common.show_ratio(ratio)}\n", flush=True)
        results[name] = record
    common.save("planning", results)


if __name__ == "__main__":
    main()
