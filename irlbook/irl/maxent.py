"""Maximum causal entropy IRL: the reward under which the demonstrations are most likely.

The demonstrator is the soft policy of `irlbook.planning` under a reward r_w = w . phi: it knows
only the past when it acts (Ziebart, Bagnell & Dey 2010). Right for any dynamics, any horizon, any
discount. w minimises the convex dual

    g(w) = V_w(p_0) - w . mu_E,      gradient  mu(pi_w) - mu_E.

With deterministic moves g is beta times the negative mean log-likelihood of the demonstrations;
with random moves the two differ by how far the demonstrations' luck is from its expectation.
The model over whole paths of the 2008 paper is in `irlbook.irl.maxent_paths`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from irlbook.errors import (
    DivergentPartitionError,
    ImproperPolicyError,
    InvalidMDPError,
    InvalidTrajectoryError,
)
from irlbook.irl.chosen_moves import ChosenPlan, ChosenWorld
from irlbook.irl.dual import DualProblem, Features, MaxEntResult, Point, Solver, check_expert, fit
from irlbook.irl.groups import Group, are_groups, check_groups
from irlbook.irl.many_goals import Edges
from irlbook.irl.maxent_paths import PathModel
from irlbook.mdp import TabularMDP, Trajectories, empty_rows
from irlbook.moves import adder
from irlbook.planning import (
    PolicySystem,
    SoftPlan,
    backward_induction,
    check_horizon,
    log_reference_measure,
    modified_policy_iteration,
    policy_iteration,
    soft_policy_iteration,
)

__all__ = [
    "Causal",
    "CausalGroups",
    "CausalPlan",
    "causal_dual",
    "causal_hessian",
    "end_in",
    "fit_max_causal_ent",
    "log_likelihood",
]


def causal_dual(
    weights: Any,
    mdp: TabularMDP,
    features: Any,
    expert_features: Any,
    *,
    horizon: int | None = None,
    beta: float = 1.0,
    reference: Any = None,
) -> tuple[float, np.ndarray]:
    """Convex dual of maximum causal entropy, g(w) = V_w(p_0) - w . mu_E, and its exact gradient.

    Args:
        weights: (K,). features: (S, K) or (S, A, K).
        expert_features: (K,) mu_E; or groups, as in `fit_max_causal_ent`: then the mean of their
            duals over all demonstrations.
        horizon: T for a policy that changes with time; None for discounted and stationary.

    Returns:
        value in units of reward, and gradient (K,) = mu(pi_w) - mu_E.
    """
    problem = _causal_problem(mdp, features, expert_features, horizon, beta, reference)
    point = problem.evaluate(np.asarray(weights, dtype=float))
    return point.value, point.gradient


def causal_hessian(
    weights: Any,
    mdp: TabularMDP,
    features: Any,
    *,
    horizon: int | None = None,
    beta: float = 1.0,
    reference: Any = None,
) -> np.ndarray:
    """(K, K) Hessian of the causal dual.

    (1/beta) sum_{t,s} gamma^t Pr(s_t = s) Cov_{a~pi}[dQ_t(s,a)/dw]: how much the choices that are
    made along the way move the features to come.
    """
    problem = Causal(mdp, features, None, horizon, beta, reference)
    return problem.hessian(problem.evaluate(np.asarray(weights, dtype=float)).plan)


@dataclass(frozen=True)
class CausalPlan:
    """A soft policy at one w.

    Attributes:
        policy: (S, A), or (T, S, A). visits: (S,), or (T, S), discounted.
        system: the linear equations of a stationary policy; None with a horizon.
    """

    policy: np.ndarray
    visits: np.ndarray
    system: PolicySystem | None


class Causal:
    """The causal dual of one expert in one world.

    Args:
        as in `fit_max_causal_ent`; `expert_features` None stands for zeros.

    States that nobody can reach may be dead: with every action forbidden, or without a way to an
    end where there is no discount. They are taken to be terminal, and what the policy says there
    means nothing.
    """

    def __init__(
        self,
        mdp: TabularMDP,
        features: Any,
        expert_features: Any,
        horizon: int | None,
        beta: float,
        reference: Any,
    ):
        if horizon is not None:
            check_horizon(horizon)
        self.horizon, self.beta = horizon, beta
        self.mdp = mdp = _without_dead_states(mdp, reference, beta, horizon)
        self.features = Features(mdp, features)
        self.reference = reference
        self.log_reference = log_reference_measure(mdp, reference, beta)
        self.expert = check_expert(expert_features, self.features.count)
        self.guess: np.ndarray | None = None  # (S,) the last soft values
        moves = mdp.chosen_moves if horizon is not None else None
        self.chosen = None if moves is None else ChosenWorld(mdp, moves, horizon or 0)

    @cached_property
    def by_action(self) -> sparse.csr_array:
        """Row a*S + s, with the discount in it: sums over actions then run along whole arrays."""
        n_states, n_actions = self.mdp.reward.shape
        order = np.arange(n_states * n_actions).reshape(n_states, n_actions).T.reshape(-1)
        return self.mdp.discount * self.mdp.transitions[order]

    @cached_property
    def backwards(self) -> sparse.csr_array:
        """The transpose of `by_action`."""
        return self.by_action.T.tocsr()

    def evaluate(self, weights: np.ndarray) -> Point[CausalPlan | ChosenPlan]:
        """g(w), its gradient, and the soft policy."""
        found: tuple[float, CausalPlan | ChosenPlan] | None = None
        if self.chosen is not None:
            reward = self.features.rows_reward(weights)
            found = self.chosen.solve(reward, self.log_reference, self.beta)
        if found is None:
            world = self.mdp.with_reward(self.features.reward(weights))
            if self.horizon is None:
                found = self._discounted(world)
            else:
                found = self._finite(world, self.horizon)
        start_value, plan = found
        if self.features.on_states:  # only row sums matter: skip the action axis
            visits = plan.visits if self.horizon is None else plan.visits.sum(axis=0)
            expected = self.features.matrix.T @ visits
        else:
            expected = self.features.expectations(self._total(plan))
        return Point(
            start_value - float(weights @ self.expert), expected - self.expert, expected, plan
        )

    def _finite(self, world: TabularMDP, horizon: int) -> tuple[float, CausalPlan]:
        """Soft backward induction, then one forward pass. Visits (T, S) include gamma^t."""
        alive = ~world.terminal
        all_alive = bool(alive.all())
        reward = np.ascontiguousarray(world.reward.T)
        log_reference = (
            None if self.log_reference is None else np.ascontiguousarray(self.log_reference.T)
        )
        values = np.zeros(world.n_states)
        policy = np.empty((horizon, *reward.shape))  # (T, A, S)
        add_ahead, add_back = adder(self.by_action), adder(self.backwards)
        for t in range(horizon - 1, -1, -1):
            q = reward.copy()
            add_ahead(values, q.reshape(-1))
            if self.beta != 1.0:
                q /= self.beta
            if log_reference is not None:
                q += log_reference
            top = q.max(axis=0)
            q -= top
            weights = np.exp(q, out=policy[t])
            total = weights.sum(axis=0)
            weights /= total
            values = self.beta * (top + np.log(total))
            if not all_alive:
                values *= alive
        visits = np.empty((horizon, world.n_states))
        here = world.start * alive
        for t in range(horizon):
            visits[t] = here
            acting, here = (policy[t] * here).reshape(-1), np.zeros(world.n_states)
            add_back(acting, here)
            if not all_alive:
                here *= alive
        plan = CausalPlan(policy.transpose(0, 2, 1), visits, None)
        return float(world.start @ values), plan

    def _discounted(self, world: TabularMDP) -> tuple[float, CausalPlan]:
        """Newton on the soft Bellman equation, started from the last solution."""
        largest = max(1.0, float(np.abs(world.reward).max()))
        gap = 1.0 - world.discount if world.discount < 1.0 else 1e-2
        # As near to rounding as a discounted sum of such rewards allows.
        tolerance = 1e-13 * largest / gap**2

        def solve(world: TabularMDP) -> SoftPlan:
            return soft_policy_iteration(
                world,
                beta=self.beta,
                reference=self.reference,
                guess=self.guess,
                tolerance=tolerance,
            )

        try:
            plan = solve(world)
        except DivergentPartitionError:
            nearby = _nearby(world, self.log_reference)
            if nearby is None:
                raise
            world, plan = nearby, solve(nearby)
        self.guess = plan.values
        system = PolicySystem(world, plan.policy)
        visits = system.solve(world.start * ~world.terminal, transpose=True) * ~world.terminal
        return float(world.start @ plan.values), CausalPlan(plan.policy, visits, system)

    def _total(self, plan: CausalPlan | ChosenPlan) -> np.ndarray:
        """(S, A) occupancy measure."""
        if isinstance(plan, ChosenPlan):
            return plan.occupancy()
        policy, visits = plan.policy, plan.visits
        if self.horizon is None:
            return policy * visits[:, None]
        return np.einsum("tsa,ts->sa", policy, visits)

    def hessian(self, plan: CausalPlan | ChosenPlan) -> np.ndarray:
        """(K, K) of g. The visits of a `CausalPlan` need not be the policy's own: they only weigh
        the choices."""
        if isinstance(plan, ChosenPlan) and self.chosen is not None and self.features.on_states:
            return self.chosen.hessian(plan, self.features.stack()[:, 0]) / self.beta
        policy, visits = plan.policy, plan.visits
        phi = self.features.stack().transpose(1, 0, 2)  # (A or 1, S, K)
        n_states, n_actions = self.mdp.reward.shape
        count = self.features.count
        hessian = np.zeros((count, count))

        def add(pi: np.ndarray, here: np.ndarray, next_value: np.ndarray) -> np.ndarray:
            """Add one slice's covariance; return dV/dw (S, K), with next_value = dV'/dw."""
            q = (self.by_action @ next_value).reshape(n_actions, n_states, count)
            q += phi
            mean = np.einsum("as,ask->sk", pi, q)
            q -= mean
            weighted = q * (pi * here)[:, :, None]
            hessian[...] += weighted.reshape(-1, count).T @ q.reshape(-1, count)
            return mean

        if self.horizon is None:
            pi = np.ascontiguousarray(policy.T)
            phi_pi = np.einsum("as,ask->sk", pi, np.broadcast_to(phi, (n_actions, n_states, count)))
            assert isinstance(plan, CausalPlan) and plan.system is not None
            add(pi, np.maximum(visits, 0.0), plan.system.solve(phi_pi, tolerance=1e-8))
        else:
            slope = np.zeros((n_states, count))
            alive = (~self.mdp.terminal)[:, None]
            for t in range(self.horizon - 1, -1, -1):
                slope = add(policy[t].T, visits[t], slope) * alive
        return hessian / self.beta

    def policy(self, plan: CausalPlan | ChosenPlan) -> np.ndarray:
        """(S, A), or (T, S, A) with a horizon."""
        return plan.policy

    def sample_size(self) -> float | None:
        """Not known: feature expectations are means."""
        return None

    def best_return(self, reward: np.ndarray) -> float:
        """An upper bound, tight to rounding, on the return of any policy under `reward` (S, A)."""
        world = self.mdp.with_reward(reward)
        if self.horizon is not None:
            return float(world.start @ backward_induction(world, self.horizon).values[0])
        solver = modified_policy_iteration if world.discount < 1.0 else policy_iteration
        try:
            plan = solver(world)
        except ImproperPolicyError:  # undiscounted, and the best policy never ends
            return np.inf
        return float(world.start @ plan.values) + plan.report.residual


def _without_dead_states(
    mdp: TabularMDP, reference: Any, beta: float, horizon: int | None
) -> TabularMDP:
    """`mdp`, in which dead states that nobody can reach are terminal."""
    log_reference = log_reference_measure(mdp, reference, beta, dead=True)
    endless = horizon is None and mdp.discount == 1.0
    if log_reference is None and not endless:
        return mdp
    edges = Edges.of(mdp, log_reference, stop=mdp.terminal)
    leaves = edges.sum_by_state(np.ones(len(edges.rows))) > 0
    dead = ~leaves & ~mdp.terminal
    if endless:
        dead = ~edges.can_reach(mdp.terminal)
    if not dead.any():
        return mdp
    dead &= ~edges.reached_from(mdp.start > 0)
    return end_in(mdp, mdp.terminal | dead, mdp.start) if dead.any() else mdp


def _nearby(world: TabularMDP, log_reference: np.ndarray | None) -> TabularMDP | None:
    """`world` with every state that nobody can reach for an end; None if there is none."""
    edges = Edges.of(world, log_reference, stop=world.terminal)
    far = ~edges.reached_from(world.start > 0) & ~world.terminal
    return end_in(world, world.terminal | far, world.start) if far.any() else None


def end_in(mdp: TabularMDP, ends: np.ndarray, start: np.ndarray) -> TabularMDP:
    """The same moves with other ends and another start, (S,) both."""
    return replace(
        mdp,
        transitions=empty_rows(mdp.transitions, np.repeat(ends, mdp.n_actions)),
        reward=np.where(ends[:, None], 0.0, mdp.reward),
        start=start,
        terminal=ends,
    )


class CausalGroups:
    """The causal dual over groups: each has its own goal, and so its own soft policy."""

    def __init__(
        self,
        mdp: TabularMDP,
        features: Any,
        groups: Sequence[Group],
        horizon: int | None,
        beta: float,
        reference: Any,
    ):
        self.features, self.beta = Features(mdp, features), beta
        checked = check_groups(groups, mdp, self.features.count)
        for i, group in enumerate(checked):
            others = mdp.terminal & ~group.ends
            if others.any():
                raise InvalidMDPError(
                    f"group {i} has a goal, but the world also ends in state "
                    f"{int(np.flatnonzero(others)[0])}, where the causal model would let it end. "
                    "Give a world without terminal states: goals take their place."
                )
        self.shares = [group.share for group in checked]
        self.problems = [
            Causal(
                end_in(mdp, group.ends, group.start),
                features,
                group.expert,
                horizon,
                beta,
                reference,
            )
            for group in checked
        ]
        self.expert: np.ndarray = np.average([g.expert for g in checked], 0, self.shares)
        certain = bool((np.diff(mdp.transitions.indptr) <= 1).all())
        counted = float(sum(group.count for group in groups))
        self.count = counted if certain and mdp.discount == 1.0 else None

    def evaluate(self, weights: np.ndarray) -> Point[list[CausalPlan | ChosenPlan]]:
        """The mean of the duals, weighted by the number of demonstrations."""
        points = [problem.evaluate(weights) for problem in self.problems]
        return Point(
            float(np.average([p.value for p in points], weights=self.shares)),
            np.average([p.gradient for p in points], 0, self.shares),
            np.average([p.expectations for p in points], 0, self.shares),
            [p.plan for p in points],
        )

    def hessian(self, plan: list[CausalPlan | ChosenPlan]) -> np.ndarray:
        hessians = [p.hessian(one) for p, one in zip(self.problems, plan, strict=True)]
        return np.average(hessians, 0, self.shares)

    def policy(self, plan: list[CausalPlan | ChosenPlan]) -> np.ndarray:
        """(G, S, A), or (G, T, S, A) with a horizon."""
        return np.stack([one.policy for one in plan])

    def best_return(self, reward: np.ndarray) -> float:
        bounds = [problem.best_return(reward) for problem in self.problems]
        return float(np.average(bounds, weights=self.shares))

    def sample_size(self) -> float | None:
        """The dual is the likelihood where moves are certain and nothing is discounted."""
        return self.count


def _causal_problem(
    mdp: TabularMDP,
    features: Any,
    expert: Any,
    horizon: int | None,
    beta: float,
    reference: Any,
) -> DualProblem[Any]:
    """One expert, or groups; where paths and causal model agree, the faster one."""
    if not are_groups(expert):
        return Causal(mdp, features, expert, horizon, beta, reference)
    certain = (np.diff(mdp.transitions.indptr) <= 1).all()
    if certain and mdp.discount == 1.0 and horizon is None:
        return PathModel(mdp, features, expert, None, beta, reference)
    return CausalGroups(mdp, features, expert, horizon, beta, reference)


def fit_max_causal_ent(
    mdp: TabularMDP,
    features: Any,
    expert_features: Any,
    *,
    horizon: int | None = None,
    beta: float = 1.0,
    reference: Any = None,
    l2: float = 0.0,
    l1: float = 0.0,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
    solver: Solver = "auto",
    initial_weights: Any = None,
) -> MaxEntResult:
    """Maximum causal entropy IRL with a linear reward (Ziebart, Bagnell & Dey 2010).

    Minimises g(w) + l2/2 |w|_2^2 + l1 |w|_1 until the optimality condition holds to `tolerance`.

    Args:
        features: (S, K) or (S, A, K), dense or scipy.sparse (then 2-D).
        expert_features: (K,) with the discount of `mdp` (gamma^t from t = 0) and at most `horizon`
            steps. Or a list of `irlbook.irl.groups.Group`: one reward is fitted to demonstrations
            with many goals, each of which takes the place of the terminal states. With certain
            moves, no discount and no horizon all goals share one factorisation
            (`irlbook.irl.many_goals`); otherwise each goal has its own soft policy to solve for.
        horizon: T, or None for the stationary discounted policy.
        reference: (S, A) weights m(a|s) >= 0, or a mask of 0 and 1 (or bool): 0 forbids.
        l2, l1: penalties. With l2 > 0 a solution always exists.
        solver: "newton" (exact Hessian), "lbfgs", or "auto": Newton up to 128 features, no l1.

    Raises:
        UnreachableFeaturesError: some reward gives the expert more than *any* policy can earn, so
            the likelihood grows for ever. The message gives the proof.
        DivergentPartitionError: discount 1, no horizon, and `initial_weights` (default 0) give an
            infinite soft value. Give weights that make every step cost something.
        NotConvergedError: the tolerance was not reached for another reason.
    """
    return fit(
        _causal_problem(mdp, features, expert_features, horizon, beta, reference),
        l2=l2,
        l1=l1,
        tolerance=tolerance,
        max_iterations=max_iterations,
        solver=solver,
        initial_weights=initial_weights,
        name="causal",
    )


def log_likelihood(log_policy: np.ndarray, demonstrations: Trajectories) -> float:
    """Mean over trajectories of sum_t log pi(a_t | s_t), in nats.

    Args:
        log_policy: (S, A), or (T, S, A) for a policy that changes with time.

    Raises:
        InvalidTrajectoryError: a state or an action that the policy does not have, or a
            demonstration that is longer than it.
    """
    demonstrations.check_numbers(*log_policy.shape[-2:])
    states, actions = demonstrations.acting_states, demonstrations.actions
    if log_policy.ndim == 3:
        if demonstrations.lengths.max() > len(log_policy):
            raise InvalidTrajectoryError(
                f"a demonstration has {demonstrations.lengths.max()} steps; the policy only "
                f"{len(log_policy)}. Raise the horizon."
            )
        picked = log_policy[demonstrations.steps, states, actions]
    else:
        picked = log_policy[states, actions]
    return float(picked.sum() / len(demonstrations))
