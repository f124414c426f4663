"""Deep maximum entropy IRL: a neural reward, trained through the exact occupancy gradient.

The dual of `irlbook.irl.maxent` needs no linear reward. For any table r(s,a)

    g(r) = V_r(p_0) - sum_{s,a} rho_E(s,a) r(s,a),      dg/dr(s,a) = rho_r(s,a) - rho_E(s,a),

so a network r_theta gets its gradient by the chain rule (Wulfmeier, Ondruska & Posner 2015):

    dg/dtheta = sum_{s,a} (rho_r(s,a) - rho_E(s,a)) dr_theta(s,a)/dtheta.

The planner stays outside the graph: one backward pass through the network, none through the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import minimize

from irlbook.errors import (
    CollapsedRewardError,
    InvalidHyperparameterError,
    InvalidTrajectoryError,
    NotConvergedError,
    ShapeError,
    UnreachableFeaturesError,
    UnsupportedModelError,
)
from irlbook.irl.maxent import Causal
from irlbook.mdp import TabularMDP
from irlbook.planning import SolverReport

__all__ = [
    "DeepMaxEntConfig",
    "DeepMaxEntResult",
    "MASS_TOLERANCE",
    "OccupancyDual",
    "fit_deep_max_ent",
    "reward_network",
    "standardise",
]

MASS_TOLERANCE = 0.01  # of total visits; a smaller difference (a tail cut off) the decay absorbs


@dataclass(frozen=True)
class DeepMaxEntConfig:
    """How a deep fit is run.

    Attributes:
        hidden: widths of the hidden layers; () is the linear reward with a bias.
        weight_decay: l2 on all weights: lambda / 2 |theta|^2 is added to the dual.
        reward_decay: l2 on the reward itself: lambda / 2 mean_s r(s)^2 is added to the dual.
        max_iterations: of L-BFGS.
        tolerance: on the largest entry of the gradient of the penalised dual.
        seed: of the first weights.
    """

    hidden: tuple[int, ...] = (32, 32)
    weight_decay: float = 0.1
    reward_decay: float = 1.0
    max_iterations: int = 500
    tolerance: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden):
            raise InvalidHyperparameterError(
                f"hidden={self.hidden}: every width must be 1 or more."
            )
        if self.weight_decay < 0 or self.reward_decay < 0:
            raise InvalidHyperparameterError("weight_decay and reward_decay must not be negative.")
        if self.max_iterations < 1 or not self.tolerance > 0:
            raise InvalidHyperparameterError(
                "max_iterations must be 1 or more, tolerance positive."
            )


@dataclass(frozen=True)
class DeepMaxEntResult:
    """A fitted neural reward.

    Attributes:
        reward: (S, A) r_theta. policy: (S, A), or (T, S, A) with a horizon.
        network: the fitted torch module. occupancy_gap: max |rho_r - rho_E| over states (for
            features on states) or pairs. dual: g(r_theta), without the penalties.
        trace: (iterations + 1, 2) penalised dual and largest gradient entry along the way.
        report: residual is the largest entry of the gradient of the penalised dual.
    """

    reward: np.ndarray
    policy: np.ndarray
    network: torch.nn.Module
    occupancy_gap: float
    dual: float
    trace: np.ndarray
    report: SolverReport


def reward_network(
    n_features: int, hidden: Sequence[int] = (32, 32), *, seed: int
) -> torch.nn.Sequential:
    """A small fully connected network phi -> r in float64, with tanh between its layers.

    tanh is smooth, so that L-BFGS and finite differences work, and bounded, so that a penalty on
    the weights bounds the reward. (With ReLU and L layers the reward can grow like |theta|^L.)
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[torch.nn.Module] = []
    widths = [n_features, *hidden, 1]
    for before, after in zip(widths[:-1], widths[1:], strict=True):
        layer = torch.nn.Linear(before, after, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.normal_(0.0, before**-0.5, generator=generator)
            layer.bias.zero_()
        layers += [layer, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def standardise(features: np.ndarray) -> np.ndarray:
    """Features with mean 0 and deviation 1 over states (or pairs); constant ones become 0.

    A network learns far faster from such inputs; a linear reward only changes its weights.
    """
    axes = tuple(range(features.ndim - 1))
    centred = features - features.mean(axis=axes)
    deviation = centred.std(axis=axes)
    constant = deviation <= 1e-12 * np.abs(features).max(axis=axes)  # but for a mean's rounding
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, deviation))


class _TabularDual(torch.autograd.Function):
    """g(r) with the gradient rho_r - rho_E; the planner is a black box to torch."""

    @staticmethod
    def forward(ctx: Any, reward: torch.Tensor, dual: OccupancyDual) -> torch.Tensor:
        flat = reward.detach().double().reshape(-1).numpy()
        point = dual.problem.evaluate(flat)
        dual.last = point.plan.policy
        gap = torch.from_numpy(point.gradient).reshape(reward.shape)
        ctx.save_for_backward(gap.to(reward.dtype))
        return reward.new_tensor(point.value)

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gap,) = ctx.saved_tensors
        return outer[0] * gap, None


class OccupancyDual:
    """The dual of one world and one expert, as a function of a whole table of rewards.

    Call it with a torch tensor, (S,) rewards of states or (S, A); it returns the scalar g(r), and
    `backward` sends rho_r - rho_E into whatever made the rewards.

    Args:
        expert_occupancy: (S, A), discounted as in `mdp`, for instance
            `demonstrations.counts(S, A, mdp.discount)`.
        on_states: the rewards are (S,).

    Raises:
        UnreachableFeaturesError: without terminal states every policy makes the same number of
            (discounted) steps, and the expert's occupancy holds another number.
    """

    def __init__(
        self,
        mdp: TabularMDP,
        expert_occupancy: Any,
        *,
        on_states: bool = True,
        horizon: int | None = None,
        beta: float = 1.0,
        reference: Any = None,
    ):
        expert = np.asarray(expert_occupancy, dtype=float)
        if expert.shape != mdp.reward.shape or not np.isfinite(expert).all():
            raise ShapeError(
                f"expert_occupancy has shape {expert.shape}; expected (S, A) = "
                f"{mdp.reward.shape}, all finite. It comes from demonstrations.counts(S, A, gamma)."
            )
        if (expert < 0).any():
            raise InvalidTrajectoryError(
                "expert_occupancy has negative entries; visits are counts."
            )
        _check_mass(mdp, expert.sum(), horizon)
        rows = mdp.n_states if on_states else mdp.reward.size
        target = expert.sum(axis=1) if on_states else expert.reshape(-1)
        self.shape = (mdp.n_states,) if on_states else mdp.reward.shape
        # A table of rewards is a linear reward whose features are the states (or the pairs).
        table = sparse.eye_array(rows, format="csr")
        self.problem = Causal(mdp, table, target, horizon, beta, reference)
        self.last = np.empty(0)  # the policy of the last rewards

    def __call__(self, reward: torch.Tensor) -> torch.Tensor:
        if reward.shape != self.shape:
            raise ShapeError(f"rewards have shape {tuple(reward.shape)}; expected {self.shape}.")
        return _TabularDual.apply(reward, self)

    def policy(self) -> np.ndarray:
        """The soft policy of the last rewards that were passed in."""
        return self.last


def _check_mass(mdp: TabularMDP, mass: float, horizon: int | None) -> None:
    """The total of the visits is the gradient in the direction of a constant reward."""
    if mdp.terminal.any() or (horizon is None and mdp.discount == 1.0):
        return
    if horizon is None:
        possible = 1.0 / (1.0 - mdp.discount)
    else:
        possible = float((mdp.discount ** np.arange(horizon)).sum())
    if abs(mass - possible) > MASS_TOLERANCE * possible:
        raise UnreachableFeaturesError(
            f"the demonstrations hold {mass:.6g} discounted steps each, but every policy makes "
            f"{possible:.6g}: the gradient can never vanish, and a constant reward would drift for "
            "ever. Cut the demonstrations to one length and give it as horizon, or add the "
            "terminal states in which they end."
        )


def fit_deep_max_ent(
    mdp: TabularMDP,
    features: Any,
    expert_occupancy: Any,
    config: DeepMaxEntConfig | None = None,
    *,
    network: torch.nn.Module | None = None,
    horizon: int | None = None,
    beta: float = 1.0,
    reference: Any = None,
    strict: bool = True,
) -> DeepMaxEntResult:
    """Deep maximum (causal) entropy IRL (Wulfmeier, Ondruska & Posner 2015), all data at once.

    Minimises g(r_theta) + weight_decay / 2 |theta|^2 + reward_decay / 2 mean r_theta^2 by L-BFGS.
    The problem is not convex any more: another seed may end in another minimum.

    Args:
        features: (S, K) for a reward on states, or (S, A, K).
        expert_occupancy: (S, A), with the discount of `mdp` and `horizon` steps.
        network: any torch module (rows, K) -> (rows, 1) in float64 that is to be trained in place;
            None makes `reward_network`.
        strict: raise when the report is not good; False returns it.

    Raises:
        CollapsedRewardError: the reward is the same everywhere and cannot move, although model and
            expert differ (dead units, or features that are constant).
        NotConvergedError: the gradient is above the tolerance at the end.
        UnreachableFeaturesError: the demonstrations have lengths that no policy has.
    """
    config = config or DeepMaxEntConfig()
    inputs = np.asarray(features, dtype=float)
    if inputs.ndim not in (2, 3) or inputs.shape[:-1] != mdp.reward.shape[: inputs.ndim - 1]:
        raise ShapeError(
            f"features have shape {inputs.shape}; expected (S, K) or (S, A, K) with "
            f"(S, A) = {mdp.reward.shape}."
        )
    dual = OccupancyDual(
        mdp,
        expert_occupancy,
        on_states=inputs.ndim == 2,
        horizon=horizon,
        beta=beta,
        reference=reference,
    )
    phi = torch.from_numpy(inputs)
    if network is None:
        network = reward_network(inputs.shape[-1], config.hidden, seed=config.seed)
    parameters = list(network.parameters())
    if any(p.dtype != torch.float64 for p in parameters):
        raise UnsupportedModelError(
            "the network is not float64, as the planner is: call network.double()."
        )
    trace: list[tuple[float, float]] = []

    def rewards() -> torch.Tensor:
        out = network(phi)
        if out.shape != (*phi.shape[:-1], 1):
            raise ShapeError(
                f"the network gives shape {tuple(out.shape)}; expected one number for each row, "
                f"{(*phi.shape[:-1], 1)}."
            )
        return out.squeeze(-1)

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        _write(parameters, theta)
        reward = rewards()
        loss = dual(reward)
        loss = loss + 0.5 * config.reward_decay * (reward**2).mean()
        loss = loss + 0.5 * config.weight_decay * sum((p**2).sum() for p in parameters)
        gradient = torch.autograd.grad(loss, parameters)
        return float(loss.detach()), torch.cat([g.reshape(-1) for g in gradient]).numpy()

    seen: dict[bytes, float] = {}  # largest gradient entry of every point that was tried

    def remembered(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(theta)
        seen[theta.tobytes()] = float(np.abs(gradient).max())
        return value, gradient

    def note(intermediate_result: Any) -> None:
        trace.append((float(intermediate_result.fun), seen[intermediate_result.x.tobytes()]))
        seen.clear()

    start = torch.cat([p.detach().reshape(-1) for p in parameters]).numpy().copy()
    trace.append((remembered(start)[0], seen[start.tobytes()]))
    options = {
        "maxiter": config.max_iterations,
        "maxfun": 3 * config.max_iterations,
        "gtol": config.tolerance,
        "ftol": 0.0,
        "maxcor": 20,
    }
    done = minimize(remembered, start, jac=True, method="L-BFGS-B", callback=note, options=options)
    gradient = objective(done.x)[1]
    with torch.no_grad():
        reward = rewards()
        value = float(dual(reward))
    gap = dual.problem.evaluate(reward.numpy().reshape(-1)).gradient
    residual = float(np.abs(gradient).max())
    report = SolverReport(
        "deep max ent lbfgs",
        residual <= config.tolerance,
        int(done.nit),
        residual,
        config.tolerance,
    )
    result = DeepMaxEntResult(
        _as_table(reward.numpy(), mdp),
        dual.policy(),
        network,
        float(np.abs(gap).max()),
        value,
        np.array(trace),
        report,
    )
    if strict:
        _demand(result, reward.numpy())
    return result


def _write(parameters: list[torch.nn.Parameter], theta: np.ndarray) -> None:
    values, begin = torch.from_numpy(theta), 0
    with torch.no_grad():
        for p in parameters:
            p.copy_(values[begin : begin + p.numel()].reshape(p.shape))
            begin += p.numel()


def _as_table(reward: np.ndarray, mdp: TabularMDP) -> np.ndarray:
    """(S, A), zero where nobody acts."""
    table = np.repeat(reward[:, None], mdp.n_actions, axis=1) if reward.ndim == 1 else reward.copy()
    table[mdp.terminal] = 0.0
    return table


def _demand(result: DeepMaxEntResult, reward: np.ndarray) -> None:
    """A fit that failed must say so, and why (imitation, issue 808: all-zero rewards)."""
    report, gradients = result.report, result.trace[:, 1]
    spread = float(np.ptp(reward))
    if spread <= 1e-9 * max(1.0, float(np.abs(reward).max())) and result.occupancy_gap > 1e-3:
        raise CollapsedRewardError(
            f"the reward is {reward.flat[0] + 0.0:.3g} everywhere, yet model and expert differ by "
            f"{result.occupancy_gap:.3g} visits somewhere. Look for dead ReLU units, for features "
            "that are the same in all states, or for a penalty that outweighs the data."
        )
    if not report.converged:
        course = "and has grown" if gradients[-1] > gradients[0] else "and has fallen"
        raise NotConvergedError(
            f"{report.method} stopped after {report.iterations} iterations with a gradient of "
            f"{report.residual:.3g} (tolerance {report.tolerance:.3g}); it began at "
            f"{gradients[0]:.3g} {course}. Raise max_iterations or the decay, and check that "
            "discount, horizon and start are those of the demonstrations."
        )
