"""Solutions of a word problem as a tree of steps, written by somebody who makes mistakes.

At each operation of the story the writer does it rightly, reads + as - (or - as +), leaves it out,
or is off by one; then the answer is written. A state is the tuple of the choices so far, so the
tree can be searched (`mcts.Game`), sampled from, and judged by the verifiers of
:mod:`irlbook.tasks.arithmetic`: by the answer, or step by step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irlbook.decoding import mcts
from irlbook.errors import InvalidHyperparameterError
from irlbook.tasks.arithmetic import Operation, Problem, answer_is_right, check

__all__ = [
    "CHOICES",
    "Found",
    "State",
    "StepTree",
    "Writer",
    "sample_until",
    "step_by_step",
    "tree_search",
]

CHOICES = ("right", "misread", "left out", "one more", "one less")
State = tuple[int, ...]


@dataclass(frozen=True)
class Writer:
    """How often each thing happens at a step; a doubling cannot be misread, the rest share."""

    right: float = 0.5
    misread: float = 0.2
    left_out: float = 0.1
    slip: float = 0.2  # half one more, half one less

    def __post_init__(self) -> None:
        chances = (self.right, self.misread, self.left_out, self.slip)
        if min(chances) < 0 or abs(sum(chances) - 1) > 1e-9 or not self.right > 0:
            raise InvalidHyperparameterError(f"{self} must be chances that sum to 1, right > 0.")


class StepTree:
    """The solutions of one problem.

    Args:
        problem: a word problem. writer: the chances of each choice.
    """

    alternating = False

    def __init__(self, problem: Problem, writer: Writer | None = None) -> None:
        self.problem, self.writer = problem, writer or Writer()

    def moves(self, state: State) -> tuple[int, ...]:
        """Places in `CHOICES` that are possible at the next operation."""
        doubling = self.problem.operations[len(state)].operator == "*"
        return tuple(i for i in range(len(CHOICES)) if not (doubling and i == 1))

    def play(self, state: State, move: int) -> State:
        return (*state, move)

    def result(self, state: State) -> float | None:
        """1 or 0 once all operations are done, by the verifier; None before."""
        if len(state) < len(self.problem.operations):
            return None
        return float(answer_is_right(self.problem, self.text(state)))

    def prior(self, state: State) -> np.ndarray:
        """The writer's chances of the possible choices."""
        w = self.writer
        chances = np.array([w.right, w.misread, w.left_out, w.slip / 2, w.slip / 2])
        chances = chances[list(self.moves(state))]
        return chances / chances.sum()

    def text(self, state: State) -> str:
        """The solution so far, with its answer once it is whole."""
        value, steps = self.problem.start, []
        for move, operation in zip(state, self.problem.operations, strict=False):
            if CHOICES[move] == "left out":
                continue
            if CHOICES[move] == "misread":
                operation = Operation("-" if operation.operator == "+" else "+", operation.amount)
            result = operation(value) + {"one more": 1, "one less": -1}.get(CHOICES[move], 0)
            steps.append(f"{value}{operation.operator}{operation.amount}={result}.")
            value = result
        if len(state) == len(self.problem.operations):
            steps.append(f"Answer: {value}")
        return " ".join(steps)

    def sound_so_far(self, state: State) -> bool:
        """The process verifier on a beginning: every operation has its right step."""
        found = check(self.problem, self.text(state))
        return found.first_wrong is None and len(found.steps) == len(state)

    def write(self, rng: np.random.Generator, state: State = ()) -> State:
        """Go on from a beginning to a whole solution, as the writer does."""
        while len(state) < len(self.problem.operations):
            state = self.play(state, int(rng.choice(self.moves(state), p=self.prior(state))))
        return state

    def lucky(self, state: State) -> bool:
        """A whole solution whose answer is right and whose steps are not."""
        text = self.text(state)
        return answer_is_right(self.problem, text) and not check(self.problem, text).sound


# Three searches with one unit of cost: a step that is written -----------------------------------


@dataclass(frozen=True)
class Found:
    """How a search ended.

    Attributes:
        state: the first whole solution that the verifier accepted, or None.
        steps: how many steps were written until then, those of abandoned solutions included.
    """

    state: State | None
    steps: int


def sample_until(tree: StepTree, budget: int, rng: np.random.Generator) -> Found:
    """Best of n with a verifier: write whole solutions until one is accepted.

    Args:
        budget: steps that may be written; the solution that is begun within it is finished.
    """
    steps = 0
    while steps < budget:
        state = tree.write(rng)
        steps += len(state)
        if tree.result(state) == 1.0:
            return Found(state, steps)
    return Found(None, steps)


def step_by_step(tree: StepTree, budget: int, rng: np.random.Generator) -> Found:
    """Draw each step until the process verifier finds it right, and go on from there."""
    state: State = ()
    steps = 0
    while steps < budget:
        if (over := tree.result(state)) is not None:
            return Found(state if over == 1.0 else None, steps)
        drawn = tree.play(state, int(rng.choice(tree.moves(state), p=tree.prior(state))))
        steps += 1
        if tree.sound_so_far(drawn):
            state = drawn
    return Found(state if tree.result(state) == 1.0 else None, steps)


def tree_search(tree: StepTree, budget: int, rng: np.random.Generator, *, c: float = 1.25) -> Found:
    """PUCT with the writer's chances as prior; a new beginning is worth what one rollout gives.

    A step that stands in the tree already is not written again. The search ends with the first
    solution that the verifier accepts.
    """
    accepted: list[State] = []
    steps = 0

    def evaluate(state: State) -> tuple[np.ndarray, float]:
        nonlocal steps
        whole = tree.write(rng, state)
        steps += len(whole) - max(len(state) - 1, 0)  # the step to `state`, and those behind it
        value = tree.result(whole)
        if value == 1.0:
            accepted.append(whole)
        return tree.prior(state), float(value or 0.0)

    class Counted:
        """The same rules; a whole solution that the walk itself reaches is looked at, too."""

        alternating = False
        moves = staticmethod(tree.moves)
        result = staticmethod(tree.result)

        @staticmethod
        def play(state: State, move: int) -> State:
            nonlocal steps
            after = tree.play(state, move)
            if (over := tree.result(after)) is not None:
                steps += 1
                if over == 1.0:
                    accepted.append(after)
            return after

    walks = 50 * budget  # walks that end in a known leaf write nothing
    mcts.search(Counted(), (), evaluate, walks, c=c, stop=lambda: bool(accepted) or steps >= budget)
    return Found(accepted[0] if accepted else None, steps)
