"""Named errors. Each message says what is wrong and what to do about it."""

import sys
from collections.abc import Callable

__all__ = [
    "CellFailedError",
    "CellTimeoutError",
    "CheckFailed",
    "CheckpointError",
    "ClaimFailed",
    "CodecError",
    "CollapsedRewardError",
    "ConstantRewardWarning",
    "ContainerError",
    "ContextLengthError",
    "DataNotFoundError",
    "DataTooLargeError",
    "DeviceUnavailableError",
    "DivergedTrainingError",
    "DivergentPartitionError",
    "EmptyDataError",
    "EndlessResponsesWarning",
    "EnvironmentProblemError",
    "EpisodeOverError",
    "FigureError",
    "FlatLossWarning",
    "FolderInUseError",
    "ImproperPolicyError",
    "InfiniteDivergenceError",
    "InvalidActionError",
    "InvalidDataError",
    "InvalidEnvironmentError",
    "InvalidExerciseError",
    "InvalidHyperparameterError",
    "InvalidMDPError",
    "InvalidPolicyError",
    "InvalidPreferencesError",
    "InvalidTrajectoryError",
    "IrlbookError",
    "MDPNotFiniteError",
    "MDPNotStochasticError",
    "MDPShapeError",
    "MalformedRowsError",
    "MarksError",
    "MetricsError",
    "MissingDependencyError",
    "MissingMarksError",
    "ModelFileError",
    "ModelNotFoundError",
    "ModelTooLargeError",
    "NotATruthValueError",
    "NotConvergedError",
    "NotFiniteError",
    "NotStochasticError",
    "NotebookError",
    "PlainRowsWarning",
    "RepositoryNotFoundError",
    "ResponseError",
    "ResumeMismatchError",
    "RewardError",
    "RootError",
    "RosterError",
    "SamplingError",
    "SeparablePreferencesError",
    "ShapeError",
    "SiteError",
    "StaleSamplesError",
    "TerminalPotentialError",
    "TerminalRewardError",
    "TokenizerError",
    "TruncatedDemonstrationsError",
    "UnidentifiedRewardError",
    "UninformativeDataError",
    "UnknownChapterError",
    "UnknownExerciseError",
    "UnknownHintError",
    "UnknownPromptError",
    "UnnormalisedOccupancyError",
    "UnreachableFeaturesError",
    "UnsafeWeightsError",
    "UnsupportedEnvironmentError",
    "UnsupportedModelError",
    "UnusedWeightsWarning",
    "WorkingCopyError",
    "as_command",
    "shown",
]


def shown(value: object, most: int = 80) -> str:
    """`value` as a message shows it: its repr on one line, cut to `most` characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= most else text[: most - 3] + "..."


class IrlbookError(Exception):
    """Base of every error that the book raises on purpose."""


def as_command(main: Callable[[], int]) -> int:
    """The exit status of a module that is run as a command; what stops it is told in one line."""
    try:
        return main()
    except (IrlbookError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130


class _ToldPlainly(IrlbookError):
    """An answer to a student: a notebook shows the message alone, and no traceback of the book."""

    def _render_traceback_(self) -> list[str]:
        name, lines = type(self).__name__, str(self).split("\n")
        return [f"{name}: {lines[0]}"] if len(lines) == 1 else [name, *lines]


class InvalidMDPError(IrlbookError, ValueError):
    """The parts given do not make a Markov decision process."""


class ShapeError(IrlbookError, ValueError):
    """An array has the wrong shape, or two of them do not fit together."""


class MDPShapeError(ShapeError, InvalidMDPError):
    """Arrays that should make a Markov decision process do not fit together."""


class NotStochasticError(IrlbookError, ValueError):
    """Numbers that should be probabilities do not sum to 1, or one of them is negative."""


class MDPNotStochasticError(NotStochasticError, InvalidMDPError):
    """A row of transitions or the start of a Markov decision process is no distribution."""


class NotFiniteError(IrlbookError, ValueError):
    """An array holds NaN or an infinite value."""


class MDPNotFiniteError(NotFiniteError, InvalidMDPError):
    """An array of a Markov decision process holds NaN or an infinite value."""


class UninformativeDataError(IrlbookError, ValueError):
    """The data are too few or too much alike to decide what is asked."""


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


class NotATruthValueError(IrlbookError, TypeError):
    """A verdict was given something else than True or False."""


class MissingDependencyError(IrlbookError, ImportError):
    """An optional package is needed here and is not installed."""


class InvalidHyperparameterError(IrlbookError, ValueError):
    """A setting of an algorithm lies outside its domain."""


class UnsupportedEnvironmentError(IrlbookError, TypeError):
    """The environment's spaces, or its way of resetting, are not those the algorithm is for."""


class EnvironmentProblemError(IrlbookError, RuntimeError):
    """A package that the book needs is missing or out of range."""


class RepositoryNotFoundError(IrlbookError, FileNotFoundError):
    """The notebooks, or the checkout that an author needs, cannot be found from here."""


class SiteError(IrlbookError, ValueError):
    """The built website is missing, or not whole: it cannot be printed."""


class WorkingCopyError(IrlbookError, FileExistsError):
    """A folder cannot be a student's working copy of the book."""


class UnknownChapterError(IrlbookError, KeyError):
    """No chapter has this number, name or path."""

    __str__ = Exception.__str__  # KeyError would print the message in quotes


class CellFailedError(IrlbookError, RuntimeError):
    """A cell of a notebook raised an error, or its kernel died."""


class CellTimeoutError(IrlbookError, TimeoutError):
    """A cell of a notebook ran past its time limit."""


class FigureError(IrlbookError, ValueError):
    """A figure cannot be shown as asked, for instance because it has no alt text."""


class UnknownExerciseError(_ToldPlainly, KeyError):
    """No exercise has this number."""

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0]) if self.args else ""


class UnknownHintError(_ToldPlainly, ValueError):
    """An exercise has no hint of this number."""


class InvalidExerciseError(IrlbookError, ValueError):
    """A card breaks a rule of the book (hints, points, rubric, wrong answers ...)."""


class CodecError(IrlbookError, ValueError):
    """A value cannot cross the border between the student's process and the check."""


class MissingMarksError(IrlbookError, ValueError):
    """A text has no marks between which something generated goes."""


class NotebookError(IrlbookError, ValueError):
    """A notebook is corrupt, foreign, or its cells do not agree with the exercise cards."""


class MarksError(IrlbookError, ValueError):
    """A sheet of marks holds something that cannot be counted; the message names the rows."""


class RosterError(IrlbookError, ValueError):
    """The list of a class, or the table of who was late, cannot be used."""


class RootError(IrlbookError, PermissionError):
    """Answers would run as root, who may read and change everything."""


class ContainerError(IrlbookError, RuntimeError):
    """The container that was asked for is not to be had here."""


class InvalidEnvironmentError(IrlbookError, ValueError):
    """The parameters given do not make an environment."""


class InvalidActionError(IrlbookError, ValueError):
    """An environment was given an action that it does not have."""


class EpisodeOverError(IrlbookError, RuntimeError):
    """An environment was stepped before its first reset or after its episode ended."""


class CheckFailed(_ToldPlainly, AssertionError):
    """An exercise's check found a property that does not hold.

    Args:
        property: the property that fails, in words.
        hint: what to think about next; never the answer.
        detail: what was seen of the student's result.
    """

    def __init__(self, property: str, hint: str, *, detail: str = "") -> None:
        super().__init__(property, hint)
        self.property, self.hint, self.detail = property, hint, detail
        self.title = ""

    def of(self, id: str, title: str) -> "CheckFailed":
        """The same failure, with the exercise named."""
        self.title = f"{id} {title}"
        return self

    def __str__(self) -> str:
        lines = [f"not yet: {self.title}"] if self.title else []
        lines.append(f"  fails: {self.property}")
        if self.detail:
            lines.append(f"  seen:  {self.detail}")
        return "\n".join([*lines, f"  hint:  {self.hint}"])


class DivergedTrainingError(IrlbookError, ArithmeticError):
    """A loss or its gradient is not a number any more; the weights are those before that step.

    Args:
        message: the step, the cause, the mend.
        examples: whose loss it was, where it was the loss.
    """

    def __init__(self, message: str, examples: list[int] | None = None) -> None:
        super().__init__(message)
        self.examples = examples or []


class MetricsError(IrlbookError, ValueError):
    """What a run has measured cannot be read."""


class CheckpointError(IrlbookError, OSError):
    """A checkpoint cannot be written or read; earlier ones are as they were."""


class ResumeMismatchError(IrlbookError, ValueError):
    """The folder holds a run with other settings or other data."""


class DeviceUnavailableError(IrlbookError, RuntimeError):
    """The device that was asked for is not here."""


class FlatLossWarning(UserWarning):
    """The loss does not move; training goes on, but look at the causes."""


class UnusedWeightsWarning(UserWarning):
    """A checkpoint holds weights that the model has no place for."""


class PlainRowsWarning(UserWarning):
    """An architecture needs a plain row for each response, which is slower than packed ones."""


class ResponseError(IrlbookError, ValueError):
    """A prompt or a response is empty, or cannot have come from this model."""


class ContextLengthError(IrlbookError, ValueError):
    """A prompt with its response does not fit into the model's context."""


class UnsupportedModelError(IrlbookError, TypeError):
    """The model's architecture or head is not the one that is needed here."""


class TokenizerError(IrlbookError, ValueError):
    """The tokenizer lacks something (an end token, a chat template), or does not fit the model."""


class ModelNotFoundError(IrlbookError, FileNotFoundError):
    """No model under this name or path, or it cannot be fetched from here."""


class ModelFileError(IrlbookError, ValueError):
    """A file that should hold a model is another kind of file, damaged, or cut off."""


class ModelTooLargeError(IrlbookError, MemoryError):
    """There is not the memory for a model; said before it is loaded, with the numbers."""


class UnsafeWeightsError(IrlbookError, ValueError):
    """The weights are pickles, which can run code when they are opened."""


class SamplingError(IrlbookError, ValueError):
    """The settings of a sampler make no distribution, or not one that a loss can score."""


class StaleSamplesError(SamplingError):
    """A sampler's log-probabilities are not those of the policy as it is."""


class RewardError(IrlbookError, ValueError):
    """A reward function raised, or did not give one finite number for each response."""


class UnknownPromptError(IrlbookError, ValueError):
    """A text is not one of the prompts of this text world."""


class InvalidDataError(IrlbookError, ValueError):
    """A data file, a row of it, or a record to be written cannot be used."""


class MalformedRowsError(InvalidDataError):
    """Rows of a data file are malformed; the message names them by file and line.

    Args:
        message: what is wrong, and the mend.
        report: the `irlbook.data.ReadReport` up to there.
    """

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report


class EmptyDataError(MalformedRowsError):
    """A data file holds no row that can be used."""


class DataTooLargeError(InvalidDataError):
    """A data file is larger than the limit, perhaps only after it is unpacked."""


class DataNotFoundError(IrlbookError, FileNotFoundError):
    """No data lie under this path or name."""


class FolderInUseError(IrlbookError, FileExistsError):
    """A folder to save in holds something that would be lost."""


class CollapsedRewardError(IrlbookError, RuntimeError):
    """A learned reward is the same everywhere although model and expert behave differently."""


class InvalidPreferencesError(IrlbookError, ValueError):
    """Comparisons are malformed; the message names their rows."""


class UnidentifiedRewardError(IrlbookError, ValueError):
    """The comparisons leave the reward free: the graph falls apart, or features never differ."""


class SeparablePreferencesError(IrlbookError, ValueError):
    """Somebody wins every comparison: the maximum likelihood is at infinity."""


class TerminalPotentialError(InvalidMDPError):
    """A shaping potential is not 0 in a terminal state: the best policy could change."""


class TruncatedDemonstrationsError(InvalidTrajectoryError):
    """Demonstrations were cut off so early that their discounted feature sums are far too small."""


class UnnormalisedOccupancyError(InvalidMDPError):
    """Occupancies that should be compared do not sum to the same number: episodes end."""


class InfiniteDivergenceError(IrlbookError, ValueError):
    """One of two occupancies is 0 where the other is not, and the divergence is infinite."""


class EndlessResponsesWarning(UserWarning):
    """A policy hardly ever ends a response by itself any more."""


class ConstantRewardWarning(UserWarning):
    """The reward cannot tell the responses to a prompt apart, so nothing is learned."""
