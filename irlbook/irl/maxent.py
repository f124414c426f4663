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

from typing import Any

import numpy as np

from irlbook.errors import ImproperPolicyError, InvalidTrajectoryError
from irlbook.irl.dual import Features, MaxEntResult, check_expert, fit
from irlbook.mdp import TabularMDP, Trajectories
from irlbook.planning import (
    PolicySystem,
    backward_induction,
    check_horizon,
    log_reference_measure,
    modified_policy_iteration,
    policy_iteration,
    soft_policy_iteration,
)


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
        weights: (K,). features: (S, K) or (S, A, K). expert_features: (K,) mu_E.
        horizon: T for a policy that changes with time; None for discounted and stationary.

    Returns:
        value in units of reward, and gradient (K,) = mu(pi_w) - mu_E.
    """
    problem = _Causal(mdp, features, expert_features, horizon, beta, reference)
    value, gradient, _ = problem.evaluate(np.asarray(weights, dtype=float))
    return value, gradient


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
    problem = _Causal(mdp, features, None, horizon, beta, reference)
    state = problem.evaluate(np.asarray(weights, dtype=float))[2]
    return problem.hessian(state)


class _Causal:
    """The causal dual of one problem; `evaluate` keeps what `hessian` and the result need."""

    def __init__(self, mdp, features, expert_features, horizon, beta, reference):
        if horizon is not None:
            check_horizon(horizon)
        self.mdp, self.horizon, self.beta = mdp, horizon, beta
        self.features = Features(mdp, features)
        self.reference = reference
        self.log_reference = log_reference_measure(mdp, reference, beta)
        self.expert = check_expert(expert_features, self.features.count)
        self.guess: np.ndarray | None = None  # (S,) the last soft values
        # Row a*S + s, with the discount in it: sums over actions then run along whole arrays.
        n_states, n_actions = mdp.reward.shape
        order = np.arange(n_states * n_actions).reshape(n_states, n_actions).T.reshape(-1)
        self.by_action = mdp.discount * mdp.transitions[order]
        self.backwards = self.by_action.T.tocsr() if horizon is not None else None

    def evaluate(self, weights: np.ndarray):
        """Return g(w), its gradient, and (policy, occupancy or state visits) for later use."""
        world = self.mdp.with_reward(self.features.reward(weights))
        if self.horizon is None:
            start_value, policy, visits = self._discounted(world)
        else:
            start_value, policy, visits = self._finite(world)
        expected = self.features.expectations(self._total(policy, visits))
        gradient = expected - self.expert
        return start_value - weights @ self.expert, gradient, (policy, visits, expected)

    def _finite(self, world: TabularMDP):
        """Soft backward induction, then one forward pass. Visits (T, S) include gamma^t."""
        alive = ~world.terminal
        all_alive = bool(alive.all())
        reward = np.ascontiguousarray(world.reward.T)
        log_reference = (
            None if self.log_reference is None else np.ascontiguousarray(self.log_reference.T)
        )
        values = np.zeros(world.n_states)
        policy = np.empty((self.horizon, *reward.shape))  # (T, A, S)
        for t in range(self.horizon - 1, -1, -1):
            q = (self.by_action @ values).reshape(reward.shape)
            q += reward
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
        visits = np.empty((self.horizon, world.n_states))
        here = world.start * alive
        for t in range(self.horizon):
            visits[t] = here
            here = self.backwards @ (policy[t] * here).reshape(-1)
            if not all_alive:
                here *= alive
        policy = policy.transpose(0, 2, 1)
        return float(world.start @ values), policy, visits

    def _discounted(self, world: TabularMDP):
        """Newton on the soft Bellman equation, started from the last solution."""
        largest = max(1.0, float(np.abs(world.reward).max()))
        gap = 1.0 - world.discount if world.discount < 1.0 else 1e-2
        plan = soft_policy_iteration(
            world,
            beta=self.beta,
            reference=self.reference,
            guess=self.guess,
            # As near to rounding as a discounted sum of such rewards allows.
            tolerance=1e-13 * largest / gap**2,
        )
        self.guess = plan.values
        self.system = PolicySystem(world, plan.policy)
        visits = self.system.solve(world.start * ~world.terminal, transpose=True) * ~world.terminal
        return float(world.start @ plan.values), plan.policy, visits

    def _total(self, policy: np.ndarray, visits: np.ndarray) -> np.ndarray:
        """(S, A) occupancy measure."""
        if self.horizon is None:
            return policy * visits[:, None]
        if self.features.on_states:  # only row sums matter: skip the action axis
            return visits.sum(axis=0)[:, None]
        return np.einsum("tsa,ts->sa", policy, visits)

    def hessian(self, state) -> np.ndarray:
        """(K, K) from the policy and visits of `evaluate`."""
        policy, visits, _ = state
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
            add(pi, np.maximum(visits, 0.0), self.system.solve(phi_pi, tolerance=1e-8))
        else:
            slope = np.zeros((n_states, count))
            alive = (~self.mdp.terminal)[:, None]
            for t in range(self.horizon - 1, -1, -1):
                slope = add(policy[t].T, visits[t], slope) * alive
        return hessian / self.beta

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
    solver: str = "auto",
    initial_weights: Any = None,
) -> MaxEntResult:
    """Maximum causal entropy IRL with a linear reward (Ziebart, Bagnell & Dey 2010).

    Minimises g(w) + l2/2 |w|_2^2 + l1 |w|_1 until the optimality condition holds to `tolerance`.

    Args:
        features: (S, K) or (S, A, K), dense or scipy.sparse (then 2-D).
        expert_features: (K,) with the discount of `mdp` (gamma^t from t = 0) and at most `horizon`
            steps.
        horizon: T, or None for the stationary discounted policy.
        l2, l1: penalties. With l2 > 0 a solution always exists.
        solver: "newton" (exact Hessian), "lbfgs", or "auto": Newton up to 128 features, no l1.

    Raises:
        UnreachableFeaturesError: some reward gives the expert more than *any* policy can earn, so
            the likelihood grows for ever. The message gives the proof.
        DivergentPartitionError: discount 1, no horizon, and `initial_weights` (default 0) give an
            infinite soft value. Give weights that make every step cost something.
        NotConvergedError: the tolerance was not reached for another reason.
    """
    problem = _Causal(mdp, features, expert_features, horizon, beta, reference)
    return fit(problem, l2, l1, tolerance, max_iterations, solver, initial_weights, "causal")


def log_likelihood(log_policy: np.ndarray, demonstrations: Trajectories) -> float:
    """Mean over trajectories of sum_t log pi(a_t | s_t), in nats.

    Args:
        log_policy: (S, A), or (T, S, A) for a policy that changes with time.
    """
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
