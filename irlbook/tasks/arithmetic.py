"""Word problems: a text world whose reward can be verified, from the answer or step by step.

A problem: "Sam has 10 cards. Then Sam buys 3. Sam gives away 2. Then the pile doubles. How many
cards now?" Its careful solution: "10+3=13. 13-2=11. 11*2=22. Answer: 22".

`answer_is_right` looks at the final answer only (an outcome reward), `check` at every step (a
process reward). They disagree on `lucky` solutions: wrong reasoning, right answer. `is_correct`
is the verifier for GSM8K's style of answers.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal, NamedTuple

import numpy as np

from irlbook.data.records import Demonstration
from irlbook.errors import InvalidHyperparameterError

__all__ = [
    "Check",
    "LARGEST",
    "MIXED",
    "NAMES",
    "Operation",
    "Operator",
    "PHRASES",
    "Problem",
    "Quality",
    "Step",
    "THINGS",
    "WRITERS",
    "answer_is_right",
    "check",
    "demonstrations",
    "final_answer",
    "generate",
    "hasty",
    "is_correct",
    "last_number",
    "lucky",
    "misread",
    "skipped",
    "solve",
]

Operator = Literal["+", "-", "*"]
Quality = Literal["careful", "misread", "skipped", "hasty", "lucky"]

NAMES = ("Sam", "Mia", "Leo", "Ana", "Tom", "Zoe")
THINGS = ("cards", "coins", "shells", "stamps", "beads", "pens")
PHRASES: dict[Operator, tuple[str, ...]] = {
    "+": ("{name} buys {amount}.", "{name} finds {amount}.", "{name} gets {amount} more."),
    "-": ("{name} gives away {amount}.", "{name} loses {amount}.", "{name} sells {amount}."),
    "*": ("the pile doubles.",),
}
LARGEST = 69


class Operation(NamedTuple):
    """One event of a story."""

    operator: str  # one of + - *
    amount: int  # 2 for "*"

    def __call__(self, value: int) -> int:
        results = {"+": value + self.amount, "-": value - self.amount, "*": value * self.amount}
        return results[self.operator]


@dataclass(frozen=True)
class Problem:
    """A story in numbers, and as the text that a model sees."""

    text: str
    start: int
    operations: tuple[Operation, ...]
    modulus: int | None = None  # the answer is the last value's remainder by it; None: that value

    @property
    def values(self) -> list[int]:
        """The pile after each operation, the start first."""
        values = [self.start]
        for operation in self.operations:
            values.append(operation(values[-1]))
        return values

    @property
    def answer(self) -> int:
        last = self.values[-1]
        return last if self.modulus is None else last % self.modulus


def generate(
    n: int,
    rng: np.random.Generator,
    *,
    steps: tuple[int, int] = (2, 4),
    largest: int = LARGEST,
) -> list[Problem]:
    """n random problems.

    Args:
        steps: fewest and most operations, uniformly between; at least one is + or -.
        largest: every value of the careful solution lies in 1 ... largest. A small one makes few
            possible answers, and so guesses that are right by luck.

    Raises: InvalidHyperparameterError.
    """
    fewest, most = steps
    if not 1 <= fewest <= most:
        raise InvalidHyperparameterError(
            f"steps is {steps}. Give (fewest, most) with 1 <= fewest <= most."
        )
    if largest < 4:
        raise InvalidHyperparameterError(f"largest is {largest}. Give at least 4.")
    return [_problem(int(rng.integers(fewest, most + 1)), largest, rng) for _ in range(n)]


def _problem(n_steps: int, largest: int, rng: np.random.Generator) -> Problem:
    name, thing = _choice(NAMES, rng), _choice(THINGS, rng)
    start = value = int(rng.integers(2, max(3, largest // 2)))
    plain = int(rng.integers(n_steps))  # this one is no doubling
    operations: list[Operation] = []
    story = [f"{name} has {start} {thing}."]
    for step in range(n_steps):
        options: list[Operator] = []
        options += ["+"] if value < largest else []
        options += ["-"] if value > 1 else []
        options += ["*"] if 2 * value <= largest and step != plain else []
        operator = options[rng.integers(len(options))]
        room = {"+": largest - value, "-": value - 1, "*": 2}[operator]
        amount = 2 if operator == "*" else int(rng.integers(1, min(room, 20) + 1))
        operations.append(Operation(operator, amount))
        value = operations[-1](value)
        phrase = _choice(PHRASES[operator], rng).format(name=name, amount=amount)
        story.append(f"Then {phrase}" if operator == "*" or rng.random() < 0.5 else phrase)
    story.append(f"How many {thing} now?")
    return Problem(" ".join(story), start, tuple(operations))


def _choice(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


# --- solutions: careful, corrupted, lucky ---------------------------------------------------------


def _written(start: int, operations: Sequence[Operation], answer: int | None = None) -> str:
    steps, value = [], start
    for operation in operations:
        result = operation(value)
        steps.append(f"{value}{operation.operator}{operation.amount}={result}.")
        value = result
    return " ".join([*steps, f"Answer: {value if answer is None else answer}"])


def solve(problem: Problem) -> str:
    """The careful solution: every step, then the answer."""
    return _written(problem.start, problem.operations)


def misread(problem: Problem, rng: np.random.Generator) -> str:
    """One + is read as -, or one - as +; the rest is done rightly. The answer is wrong.

    Where some of these errors lead to no negative pile, one of those is made: a pile below zero
    would give the error away.
    """
    read = [_flipped(problem, i) for i, o in enumerate(problem.operations) if o.operator != "*"]
    hidden = [p for p in read if min(p.values) >= 0]
    made = (hidden or read)[rng.integers(len(hidden or read))]
    return _written(made.start, made.operations)


def _flipped(problem: Problem, at: int) -> Problem:
    """The problem with the sign of one operation turned round."""
    operations = list(problem.operations)
    turned: Operator = "-" if operations[at].operator == "+" else "+"
    operations[at] = Operation(turned, operations[at].amount)
    return replace(problem, operations=tuple(operations))


def skipped(problem: Problem, rng: np.random.Generator) -> str:
    """One operation is left out; the rest is done rightly. The answer is wrong."""
    at = int(rng.integers(len(problem.operations)))
    return _written(problem.start, problem.operations[:at] + problem.operations[at + 1 :])


def hasty(problem: Problem, rng: np.random.Generator) -> str:
    """No steps, a guess near the answer: off by at most 2, right one time in five."""
    return f"Answer: {max(0, problem.answer + int(rng.integers(-2, 3)))}"


def lucky(problem: Problem, rng: np.random.Generator) -> str:
    """Wrong reasoning that ends at the right answer, where the problem has at least two steps.

    One intermediate result is off by 1 to 3, and the step after it undoes the error. With one
    step only, that step has a wrong result, and the answer contradicts it.
    """
    values = problem.values
    at = int(rng.integers(1, max(2, len(values) - 1)))  # which value is written wrongly
    while (wrong := values[at] + int(rng.integers(-3, 4))) == values[at] or wrong < 0:
        pass
    claimed = [*values[:at], wrong, *values[at + 1 :]]
    steps = [
        f"{before}{operation.operator}{operation.amount}={after}."
        for before, operation, after in zip(claimed, problem.operations, claimed[1:], strict=False)
    ]
    return " ".join([*steps, f"Answer: {problem.answer}"])


WRITERS: dict[Quality, Callable[[Problem, np.random.Generator], str]] = {
    "careful": lambda problem, rng: solve(problem),
    "misread": misread,
    "skipped": skipped,
    "hasty": hasty,
    "lucky": lucky,
}
MIXED: dict[Quality, float] = {"careful": 0.45, "hasty": 0.20, "misread": 0.20, "skipped": 0.15}


def demonstrations(
    problems: Sequence[Problem], rng: np.random.Generator, mix: dict[Quality, float] | None = None
) -> list[Demonstration]:
    """A solution to each problem.

    Args:
        mix: how often each quality is written, summing to 1 (as `MIXED`); careful when None.
    """
    mix = {"careful": 1.0} if mix is None else mix
    unknown = [quality for quality in mix if quality not in WRITERS]
    if unknown or min(mix.values(), default=-1) < 0 or abs(sum(mix.values()) - 1) > 1e-9:
        raise InvalidHyperparameterError(
            f"mix is {mix}. Give probabilities that sum to 1, of {', '.join(WRITERS)}."
        )
    drawn = rng.choice(len(mix), size=len(problems), p=list(mix.values()))
    writers = [WRITERS[quality] for quality in mix]
    return [
        Demonstration(problem.text, writers[i](problem, rng))
        for problem, i in zip(problems, drawn, strict=True)
    ]


# --- verifiers ------------------------------------------------------------------------------------

# Few digits a number: Python refuses to read very long ones, and no answer is that long.
_BLANKS = re.compile(r"[^\S\n]*([-+*=])[^\S\n]*")  # around a sign; "10 + 3 = 13" is "10+3=13"
_STEP_END = re.compile(r"(=-?\d{1,9})\.(?=\d{1,9}[-+*]\d{1,9}=)", re.ASCII)  # no decimal point
_EQUATION = re.compile(r"(?<![\d.])(-?\d{1,9})([-+*])(\d{1,9})=(-?\d{1,9})(?!\.?\d)", re.ASCII)
_SIZE = r"\$?(?:(?:\d{1,3}(?:,\d{3})+|\d{1,30})(?:\.\d{1,30})?|\.\d{1,30})"
_NO_NUMBER = r"(?![\d/*^+]|[.,]\d|[eE]\d)"  # as after the 3 of 3/4
_MARK = re.compile(r"(?:####|\\boxed\{|\b(?:a|answer):)[*\s]*", re.ASCII | re.IGNORECASE)
_MARKED_NUMBER = re.compile(rf"\$?[-+]?{_SIZE}{_NO_NUMBER}", re.ASCII)
_ANY_NUMBER = re.compile(rf"(?<![\d.,])(?:(?<![\w)])[-+])?{_SIZE}", re.ASCII)


class Step(NamedTuple):
    """An equation of a solution, and whether it is the right next step of the problem."""

    text: str
    right: bool


@dataclass(frozen=True)
class Check:
    """What the step verifier found."""

    steps: tuple[Step, ...]
    first_wrong: int | None  # the first step that is not right, counted from 0
    complete: bool  # every operation of the problem has its right step
    answer_right: bool

    @property
    def sound(self) -> bool:
        """Right answer by right steps, none missing, none wrong."""
        return self.answer_right and self.complete and self.first_wrong is None

    @property
    def lucky(self) -> bool:
        """Right answer, wrong or missing reasoning: what an outcome reward cannot see."""
        return self.answer_right and not self.sound


def check(problem: Problem, solution: str) -> Check:
    """Verify every step of a solution. The solution may be any text; never raises.

    Step i is right when its equation is true, starts from the true value of the pile (either
    side of + and *), and arrives at the next true value. Steps after a wrong one are judged the
    same way: against the truth, not against what was claimed before. What stands after "Answer:"
    is no step. Blanks around signs do not matter, nor whether one follows a full stop.
    """
    values = problem.values
    body = _STEP_END.sub(r"\1. ", _BLANKS.sub(r"\1", solution.split("Answer:")[0]))
    steps: list[Step] = []
    covered = 0
    for i, match in enumerate(_EQUATION.finditer(body)):
        left, operator, right, result = match.groups()
        true = Operation(operator, int(right))(int(left)) == int(result)
        starts = i + 1 < len(values) and (
            int(left) == values[i] or (operator != "-" and int(right) == values[i])
        )
        good = true and starts and int(result) == values[i + 1]
        covered += good
        steps.append(Step(match.group(), good))
    first_wrong = next((i for i, step in enumerate(steps) if not step.right), None)
    complete = covered == len(problem.operations)
    return Check(tuple(steps), first_wrong, complete, answer_is_right(problem, solution))


def answer_is_right(problem: Problem, solution: str) -> bool:
    """The outcome reward: the last "Answer: number" of any text is the problem's answer."""
    return final_answer(solution) == problem.answer


def final_answer(text: str) -> Decimal | None:
    """The number after the last mark ("####", "A:", "Answer:", "\\boxed{") of any text.

    None where there is no mark, or no number after the last one: who writes two answers is judged
    by the second. Thousands separators, a dollar sign, decimals and a sign are read: "1,000.50"
    is 1000.5; "3/4" is no number. Never raises.
    """
    marks = list(_MARK.finditer(text))
    number = _MARKED_NUMBER.match(text, marks[-1].end()) if marks else None
    return _decimal(number.group()) if number else None


def last_number(text: str) -> Decimal | None:
    """The last number of any text, marked or not: the more generous verifier. Never raises."""
    numbers = _ANY_NUMBER.findall(text)
    return _decimal(numbers[-1]) if numbers else None


def is_correct(solution: str, answer: str) -> bool:
    """Does a solution in GSM8K's style end with this answer, compared as numbers?

    Args:
        solution: any text, as a model wrote it.
        answer: the right answer: a number, or a worked solution that ends with "#### number".

    Raises: InvalidHyperparameterError, when `answer` holds no number to compare with.
    """
    truth = final_answer(answer)
    if truth is None:
        truth = final_answer(f"#### {answer.strip()}")
    if truth is None:
        raise InvalidHyperparameterError(
            f"The right answer {answer[:40]!r} holds no number. Give a number, or a text that ends "
            "with '#### number'."
        )
    return final_answer(solution) == truth


def _decimal(number: str) -> Decimal:
    return Decimal(number.replace(",", "").replace("$", ""))
