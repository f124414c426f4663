"""Named errors. Each message says what is wrong and what to do about it."""


class IrlbookError(Exception):
    """Base of every error that the book raises on purpose."""


class InvalidMDPError(IrlbookError, ValueError):
    """The parts given do not make a Markov decision process."""


class ShapeError(InvalidMDPError):
    """An array has the wrong shape."""


class NotStochasticError(InvalidMDPError):
    """A row of probabilities does not sum to 1, or has a negative entry."""


class NotFiniteError(InvalidMDPError):
    """An array holds NaN or an infinite value."""


class TerminalRewardError(InvalidMDPError):
    """A reward stands on a terminal state, where no action is taken and nothing is collected."""


class InvalidPolicyError(IrlbookError, ValueError):
    """An array is not a policy (or not a reference measure) of this MDP."""


class InvalidTrajectoryError(IrlbookError, ValueError):
    """A demonstration is empty, leaves the state space, or makes an impossible move."""


class ImproperPolicyError(IrlbookError, ValueError):
    """Undiscounted, and the episode does not end with probability one: the sums diverge."""


class DivergentPartitionError(IrlbookError, ValueError):
    """The partition function (a sum over paths) is infinite."""


class UnreachableFeaturesError(IrlbookError, ValueError):
    """No policy has the demonstrated feature expectations: the maximum likelihood diverges."""


class NotConvergedError(IrlbookError, RuntimeError):
    """A solver stopped before it reached its tolerance."""


class ClaimFailed(IrlbookError, AssertionError):
    """A sentence of the book does not hold in this run."""


class MissingDependencyError(IrlbookError, ImportError):
    """An optional package is needed here and is not installed."""
