"""Word problems with few possible answers, in which wrong reasoning is often lucky.

"Sam has $14. Sells $3. Buys $8." asks what is left over when the money is put into bags of $5. The
careful solution is "14-3=11;11+8=19;Answer:4". Who counts column by column and forgets to carry
writes 15+8=13 and is wrong by 10, which a remainder by 5 never shows: the answer is right, the
step is not. (The dollar sign makes a number the same token in problem and solution.)

The checks are those of :mod:`irlbook.tasks.arithmetic`: `answer_is_right` is the outcome reward,
`check(...).sound` the process reward.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from irlbook.data.records import Demonstration
from irlbook.errors import InvalidHyperparameterError
from irlbook.tasks.arithmetic import NAMES, Operation, Operator, Problem, misread, skipped

__all__ = [
    "AMOUNT",
    "LARGEST",
    "MODULUS",
    "PHRASES",
    "WRITERS",
    "Writer",
    "column_result",
    "columnwise",
    "demonstrations",
    "direct",
    "generate",
    "hasty",
    "solve",
    "steps_of",
]

Writer = Literal["careful", "columnwise", "misread", "skipped", "hasty", "direct"]

MODULUS = 5
LARGEST = 24  # a pile never holds more
AMOUNT = 9  # nor does more come or go at a time
PHRASES: dict[Operator, tuple[str, ...]] = {"+": ("Buys", "Finds"), "-": ("Sells", "Loses")}


def generate(
    n: int, rng: np.random.Generator, *, steps: tuple[int, int] = (2, 3), modulus: int = MODULUS
) -> list[Problem]:
    """n random problems with + and - only; every value lies in 1 ... `LARGEST`.

    Args:
        steps: fewest and most operations, uniformly between.
        modulus: the answer is the last value's remainder by it.

    Raises: InvalidHyperparameterError.
    """
    fewest, most = steps
    if not 1 <= fewest <= most:
        raise InvalidHyperparameterError(
            f"steps is {steps}. Give (fewest, most) with 1 <= fewest <= most."
        )
    if modulus < 2:
        raise InvalidHyperparameterError(f"modulus is {modulus}. Give at least 2.")
    return [_problem(int(rng.integers(fewest, most + 1)), modulus, rng) for _ in range(n)]


def _problem(n_steps: int, modulus: int, rng: np.random.Generator) -> Problem:
    start = value = int(rng.integers(2, LARGEST + 1))
    operations: list[Operation] = []
    story = [f"{NAMES[rng.integers(len(NAMES))]} has ${start}."]
    for _ in range(n_steps):
        options: list[Operator] = []
        options += ["+"] if value < LARGEST else []
        options += ["-"] if value > 1 else []
        operator = options[rng.integers(len(options))]
        room = LARGEST - value if operator == "+" else value - 1
        amount = int(rng.integers(1, min(room, AMOUNT) + 1))
        operations.append(Operation(operator, amount))
        value = operations[-1](value)
        story.append(f"{PHRASES[operator][rng.integers(2)]} ${amount}.")
    return Problem(" ".join(story), start, tuple(operations), modulus)


# --- solutions ------------------------------------------------------------------------------------


def column_result(value: int, operation: Operation) -> int:
    """The result column by column, without carrying or borrowing: right but for a multiple of 10.

    15 + 8 gives 13, and 14 - 8 gives 16.
    """
    return value - value % 10 + operation(value) % 10


def solve(problem: Problem) -> str:
    """The careful solution: every step, then the answer."""
    return _written(problem, lambda value, operation: operation(value))


def columnwise(problem: Problem, rng: np.random.Generator | None = None) -> str:
    """Each step by `column_result`. The answer is right, since 5 divides 10; the steps may not be.

    Raises: InvalidHyperparameterError, where the modulus does not divide 10.
    """
    if problem.modulus not in (2, 5, 10):
        raise InvalidHyperparameterError(
            f"the answers are remainders by {problem.modulus}, and an error of 10 shows in them. "
            "Take a modulus of 2, 5 or 10."
        )
    return _written(problem, column_result)


def hasty(problem: Problem, rng: np.random.Generator) -> str:
    """No steps, a guess: right one time in `modulus`."""
    return f"Answer:{rng.integers(problem.modulus or LARGEST + 1)}"


def direct(problem: Problem) -> str:
    """No steps, and the right answer: what a solver writes who needs no scratch work."""
    return f"Answer:{problem.answer}"


def _written(problem: Problem, result: Callable[[int, Operation], int]) -> str:
    value, steps = problem.start, []
    for operation in problem.operations:
        after = result(value, operation)
        steps.append(f"{value}{operation.operator}{operation.amount}={after}")
        value = after
    answer = value if problem.modulus is None else value % problem.modulus
    return ";".join([*steps, f"Answer:{answer}"])


def _in_this_style(problem: Problem, solution: str) -> str:
    """A solution of `arithmetic`, "1+2=3. Answer: 3", as this world writes it."""
    body, value = solution.replace(". ", ";").split("Answer: ")
    answer = int(value) if problem.modulus is None else int(value) % problem.modulus
    return f"{body}Answer:{answer}"


WRITERS: dict[Writer, Callable[[Problem, np.random.Generator], str]] = {
    "careful": lambda problem, rng: solve(problem),
    "columnwise": columnwise,
    "misread": lambda problem, rng: _in_this_style(problem, misread(problem, rng)),
    "skipped": lambda problem, rng: _in_this_style(problem, skipped(problem, rng)),
    "hasty": hasty,
    "direct": lambda problem, rng: direct(problem),
}


def demonstrations(
    problems: Sequence[Problem], rng: np.random.Generator, mix: Mapping[Writer, float]
) -> list[Demonstration]:
    """A solution to each problem.

    Args:
        mix: how often each writer writes it, summing to 1.

    Raises: InvalidHyperparameterError.
    """
    unknown = [writer for writer in mix if writer not in WRITERS]
    if unknown or min(mix.values(), default=-1) < 0 or abs(sum(mix.values()) - 1) > 1e-9:
        raise InvalidHyperparameterError(
            f"mix is {mix}. Give probabilities that sum to 1, of {', '.join(WRITERS)}."
        )
    drawn = rng.choice(len(mix), size=len(problems), p=list(mix.values()))
    writers = [WRITERS[writer] for writer in mix]
    return [
        Demonstration(problem.text, writers[i](problem, rng))
        for problem, i in zip(problems, drawn, strict=True)
    ]


def steps_of(solution: str) -> list[str]:
    """The solution cut behind each semicolon: its steps and its answer, each with what it ends.

    "".join(steps_of(solution)) is the solution.
    """
    parts = solution.split(";")
    return [f"{part};" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
