"""Fitting ten reward weights by maximum causal entropy, to a feature gap of 1e-3 and of 1e-6.

    python benchmarks/bench_fit.py                      # everything; about 20 minutes with peers
    python benchmarks/bench_fit.py --only finite|discounted|large

The gap is max_k |mu_k(pi_w) − mu_E,k| in total (not mean) feature counts, measured for every side
by the same exact calculation. The expert is the soft-optimal policy of known random weights, so
the gap can be closed. Two kinds of features: overlapping bumps and random patches.

Peers:
- `imitation`, MCEIRL, finite horizon 4·side: linear reward without bias in float64, its own
  training step, zero start. Its learning rate is chosen for it: a sweep over optimisers and rates
  in which only the two dynamic programs are swapped for ours (same numbers, checked), so that the
  sweep takes minutes; the best setting then runs unchanged against the clock.
- `econirl`, MCEIRLEstimator, discounted: fitted to sampled trajectories without standard errors, by
  its default solver and by its root finder, each once in a process of its own with a time limit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time

import common
import numpy as np

from irlbook.mdp import Trajectories

N_FEATURES = 10
DISCOUNT = 0.99
SWEEP = [("Adam", rate) for rate in (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0)] + [
    ("SGD with momentum", rate) for rate in (1e-3, 3e-3, 1e-2, 3e-2)
]
SWEEP_ITERATIONS = 1000  # imitation's default


class Problem:
    """A gridworld, features, and the feature expectations of a soft-optimal expert."""

    def __init__(self, side: int, kind: str, horizon: int | None):
        rng = np.random.default_rng(side)
        self.side, self.horizon = side, horizon
        self.transitions = common.grid_transitions(side)
        self.features = common.FEATURES[kind](side, N_FEATURES, rng)
        self.true_weights = rng.normal(size=N_FEATURES)
        self.mdp = common.make_mdp(
            self.transitions, np.zeros(side * side), 1.0 if horizon else DISCOUNT, start=None
        )
        self.expert = self.expectations(self.true_weights)

    def policy(self, weights: np.ndarray) -> np.ndarray:
        from irlbook import planning

        world = self.mdp.with_reward(self.features @ weights)
        if self.horizon:
            return planning.soft_backward_induction(world, self.horizon).policy
        return planning.soft_policy_iteration(world, tolerance=1e-10).policy

    def expectations(self, weights: np.ndarray) -> np.ndarray:
        from irlbook import planning

        occupancy = planning.occupancy_measure(self.mdp, self.policy(weights), self.horizon)
        return planning.feature_expectations(occupancy, self.features)

    def gap(self, weights: np.ndarray) -> float:
        return float(np.abs(self.expectations(weights) - self.expert).max())

    def fit(self, tolerance: float, expert: np.ndarray | None = None) -> np.ndarray:
        """Our side: the weights."""
        from irlbook.irl.maxent import fit_max_causal_ent

        expert = self.expert if expert is None else expert
        return fit_max_causal_ent(
            self.mdp, self.features, expert, horizon=self.horizon, tolerance=tolerance
        ).weights


def state_visits(problem: Problem, weights: np.ndarray) -> np.ndarray:
    """(S,) visits as imitation counts them: the state where the episode ends is one more visit."""
    from irlbook import planning

    by_time = planning.occupancy_by_time(problem.mdp, problem.policy(weights), problem.horizon)
    arrived = problem.transitions.T @ by_time[-1].ravel()
    return by_time.sum(axis=(0, 2)) + arrived


class Imitation:
    """imitation's MCEIRL on a Problem."""

    def __init__(self, problem: Problem, mce_irl):
        import torch
        from imitation.rewards.reward_nets import RewardNet
        from seals.base_envs import TabularModelPOMDP

        torch.set_num_threads(1)

        class LinearReward(RewardNet):
            def __init__(self, env):
                super().__init__(env.observation_space, env.action_space)
                self.weights = torch.nn.Parameter(torch.zeros(N_FEATURES, dtype=torch.float64))

            def forward(self, state, action, next_state, done):
                return state @ self.weights

        n_states = problem.mdp.n_states
        self.problem, self.mce_irl, self.torch, self.net = problem, mce_irl, torch, LinearReward
        self.env = TabularModelPOMDP(
            transition_matrix=problem.mdp.dense(),
            observation_matrix=problem.features,
            reward_matrix=np.zeros(n_states),
            horizon=problem.horizon,
            initial_state_dist=problem.mdp.start,
        )
        reward = problem.features @ problem.true_weights
        self.visits = self.mce_irl.mce_occupancy_measures(self.env, reward=reward)[1]
        ours = state_visits(problem, problem.true_weights)
        assert np.abs(self.visits - ours).max() <= 1e-10 * ours.max(), "visits disagree"

    def fit(
        self, setting: tuple[str, float], target: float, iterations: int, seconds: float = np.inf
    ) -> dict[str, float]:
        """Train step by step until its own gap is at most `target`, or out of steps or time."""
        name, rate = setting
        optimiser, options = {
            "Adam": (self.torch.optim.Adam, {"lr": rate}),
            "SGD with momentum": (self.torch.optim.SGD, {"lr": rate, "momentum": 0.9}),
        }[name]
        net = self.net(self.env)
        trainer = self.mce_irl.MCEIRL(
            self.visits,
            self.env,
            net,
            np.random.default_rng(0),
            optimizer_cls=optimiser,
            optimizer_kwargs=options,
            log_interval=None,
        )
        observations = self.torch.as_tensor(self.env.observation_matrix)
        begin, best, steps = time.perf_counter(), np.inf, 0
        while steps < iterations:
            steps += 1
            weights = net.weights.detach().numpy().copy()
            trainer._train_step(observations)
            gap = float(net.weights.grad.abs().max())  # feature counts minus the expert's
            best = min(best, gap)
            if gap <= target or not np.isfinite(gap) or time.perf_counter() - begin > seconds:
                break
        return {
            "reached": gap <= target,
            "iterations": steps,
            "best gap": best,
            "seconds": time.perf_counter() - begin,
            "exact gap": self.problem.gap(weights),
        }

    def sweep(self, target: float) -> tuple[tuple[str, float], dict[str, dict]]:
        """The setting that needs fewest iterations (or comes closest), and the whole sweep."""
        slow = self.mce_irl.mce_occupancy_measures

        def fast(env, *, reward, discount):
            weights = np.linalg.lstsq(self.problem.features, reward, rcond=None)[0]
            return None, state_visits(self.problem, weights)

        self.mce_irl.mce_occupancy_measures = fast
        runs, iterations = {}, SWEEP_ITERATIONS
        try:
            for setting in SWEEP:
                runs[setting] = self.fit(setting, target, iterations)
                if runs[setting]["reached"]:  # slower settings need not be followed to their end
                    iterations = runs[setting]["iterations"]
        finally:
            self.mce_irl.mce_occupancy_measures = slow
        best = min(
            runs,
            key=lambda s: (
                not runs[s]["reached"],
                runs[s]["iterations"] if runs[s]["reached"] else runs[s]["best gap"],
            ),
        )
        common.table(
            ["imitation's setting (sweep)", f"reaches {target:g}", "iterations", "best gap"],
            [
                [
                    f"{name}, {rate:g}",
                    "yes" if run["reached"] else "no",
                    run["iterations"],
                    f"{run['best gap']:.1e}",
                ]
                for (name, rate), run in runs.items()
            ],
        )
        return best, {f"{name}, {rate:g}": run for (name, rate), run in runs.items()}


def timed_fits(problem: Problem, tolerance: float, rounds: int) -> tuple[np.ndarray, float]:
    """Seconds of our fit (rounds,), and its exact gap."""
    weights = problem.fit(tolerance)
    seconds = common.interleave({"irlbook": lambda: problem.fit(tolerance)}, rounds, warmup=0)
    gap = problem.gap(weights)
    assert gap <= 1.01 * tolerance, gap
    return seconds["irlbook"], gap


def against_imitation(problem: Problem, mce_irl, rounds: int, limit: float) -> dict[str, object]:
    """Sweep imitation's settings, race its best one to 1e-3 in turns, then let it try for 1e-6."""
    peer = Imitation(problem, mce_irl)
    best, sweep = peer.sweep(1e-3)
    name = f"{best[0]}, {best[1]:g}"
    steps = sweep[name]["iterations"] + 5
    runs: list[dict[str, float]] = []
    seconds = common.interleave(
        {
            "irlbook": lambda: problem.fit(1e-3),
            "imitation": lambda: runs.append(peer.fit(best, 1e-3, steps)),
        },
        rounds,
        warmup=0,
    )
    ratio = common.spread(seconds["imitation"] / seconds["irlbook"])
    first = runs[0]
    print(
        f"to 1e-3: imitation ({name}) {common.show_seconds(np.median(seconds['imitation']))} in "
        f"{first['iterations']} iterations, "
        f"{'reached' if first['reached'] else 'NOT reached'}, best gap {first['best gap']:.1e}; "
        f"irlbook {common.show_seconds(np.median(seconds['irlbook']))}; "
        f"ratio {'' if first['reached'] else 'at least '}{common.show_ratio(ratio)}",
        flush=True,
    )
    longer = peer.fit(best, 1e-6, 10**6, seconds=limit)
    print(
        f"to 1e-6: imitation {'reached it' if longer['reached'] else 'did not reach it'} in "
        f"{common.show_seconds(longer['seconds'])}, best gap {longer['best gap']:.1e}\n",
        flush=True,
    )
    return {
        "imitation sweep": sweep,
        "imitation setting": name,
        "imitation to 1e-3": {"seconds": common.spread(seconds["imitation"]), "runs": runs},
        "ratio to 1e-3": ratio,
        "imitation to 1e-6": longer,
    }


def finite(rounds: int, limit: float) -> dict[str, object]:
    """20×20, horizon 80, against imitation."""
    results = {}
    mce_irl = common.peer("imitation.algorithms.mce_irl", "imitation")
    for kind in common.FEATURES:
        problem = Problem(20, kind, 80)
        record: dict[str, object] = {}
        for tolerance in (1e-3, 1e-6):
            seconds, gap = timed_fits(problem, tolerance, 5)
            record[f"irlbook to {tolerance:g}"] = {"seconds": common.spread(seconds), "gap": gap}
            print(
                f"20×20, {kind}: irlbook to {tolerance:g} in "
                f"{common.show_seconds(np.median(seconds))}, gap {gap:.1e}",
                flush=True,
            )
        if mce_irl is not None:
            record |= against_imitation(problem, mce_irl, rounds, limit)
        results[kind] = record
    return results


def sampled_problem() -> tuple[Problem, Trajectories]:
    """20×20 discounted, with an expert that is 200 sampled trajectories of 500 steps."""
    from irlbook.mdp import sample_trajectories

    problem = Problem(20, "patches", None)
    demonstrations = sample_trajectories(
        problem.mdp, problem.policy(problem.true_weights), 200, 500, np.random.default_rng(0)
    )
    # EconIRL divides by the sum of the discounts that were seen; so does the expert here.
    counts = demonstrations.counts(*problem.mdp.reward.shape, DISCOUNT).sum(axis=1)
    problem.expert = problem.features.T @ counts / counts.sum() / (1 - DISCOUNT)
    return problem, demonstrations


def econirl_fit(optimizer: str) -> dict[str, object]:
    """One fit by EconIRL in this process: seconds, and the exact gap of its weights."""
    import jax.numpy as jnp
    from econirl.core.types import DDCProblem, Panel, Trajectory
    from econirl.estimation.mce_irl import MCEIRLEstimator
    from econirl.preferences.reward import LinearReward

    problem, demonstrations = sampled_problem()
    n_states, n_actions = problem.mdp.reward.shape
    estimator = MCEIRLEstimator(optimizer=optimizer, compute_se=False, svf_max_iter=10_000)
    panel = Panel([Trajectory(s[:-1], a, s[1:]) for s, a in demonstrations])
    names = [f"w{k}" for k in range(N_FEATURES)]
    begin = time.perf_counter()
    found = estimator._optimize(
        panel=panel,
        utility=LinearReward(jnp.asarray(problem.features), names, n_actions),
        problem=DDCProblem(n_states, n_actions, discount_factor=DISCOUNT, scale_parameter=1.0),
        transitions=jnp.asarray(problem.mdp.dense().transpose(1, 0, 2)),
        initial_params=jnp.zeros(N_FEATURES),
        initial_dist=jnp.asarray(problem.mdp.start),
    )
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "gap": problem.gap(np.asarray(found.parameters, dtype=float))}


def discounted(limit: float) -> dict[str, object]:
    """20×20, discount 0.99, against EconIRL."""
    results: dict[str, object] = {}
    for kind in common.FEATURES:
        problem = Problem(20, kind, None)
        seconds, gap = timed_fits(problem, 1e-6, 15)
        results[kind] = {"seconds": common.spread(seconds), "gap": gap}
        print(
            f"20×20 discounted, {kind}: irlbook to 1e-6 in "
            f"{common.show_seconds(np.median(seconds))} (fastest "
            f"{common.show_seconds(seconds.min())}), gap {gap:.1e}",
            flush=True,
        )
    if common.peer("econirl", "econirl") is None:
        return results
    problem, _ = sampled_problem()
    for name in ("L-BFGS-B", "root"):
        try:
            theirs = common.in_subprocess(__file__, "--econirl", name, timeout=limit)
        except subprocess.TimeoutExpired:
            theirs = {"seconds": limit, "gap": None}
        ours, gap = timed_fits(problem, 1e-6, 5)
        ratio = common.spread(theirs["seconds"] / ours)
        results[f"econirl {name}"] = {**theirs, "irlbook": common.spread(ours), "ratio": ratio}
        ended = f"gap {theirs['gap']:.1e}" if theirs["gap"] is not None else "stopped, not done"
        print(
            f"the same from 200 sampled trajectories: econirl {name} "
            f"{common.show_seconds(theirs['seconds'])} ({ended}); irlbook "
            f"{common.show_seconds(np.median(ours))} (gap {gap:.1e}); "
            f"ratio {common.show_ratio(ratio)}",
            flush=True,
        )
    return results


def large() -> dict[str, object]:
    """What no peer reaches: 64×64 finite horizon, 256×256 discounted, to 1e-6."""
    results = {}
    for side, horizon in ((64, 256), (256, None)):
        for kind in common.FEATURES:
            problem = Problem(side, kind, horizon)
            seconds, gap = timed_fits(problem, 1e-6, 3)
            name = f"{side}×{side} {'horizon ' + str(horizon) if horizon else 'discounted'} {kind}"
            results[name] = {"seconds": common.spread(seconds), "gap": gap}
            print(
                f"{name}: irlbook to 1e-6 in {common.show_seconds(np.median(seconds))}, "
                f"gap {gap:.1e}",
                flush=True,
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["finite", "discounted", "large"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120, help="seconds given to a peer for 1e-6")
    parser.add_argument("--econirl", help="one fit by EconIRL with this optimizer, as JSON")
    options = parser.parse_args()
    if options.econirl:
        print(json.dumps(econirl_fit(options.econirl), default=float))
        return
    parts = {
        "finite": lambda: finite(options.rounds, options.limit),
        "discounted": lambda: discounted(options.limit),
        "large": large,
    }
    for name, part in parts.items():
        if options.only in (None, name):
            common.save(f"fit_{name}", part())


if __name__ == "__main__":
    main()
