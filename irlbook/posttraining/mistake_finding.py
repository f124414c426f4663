"""Where does a chain of thought go wrong first? Checkers that compute, and one that reads words.

A chain is a question and its steps (`data.ReasoningTrace`). A *checker* names the first step that
it holds to be wrong, or None. `equation_mistake` and `stack_mistake` compute what a step claims,
and `fit_step_classifier` learns from other chains which words go with mistakes.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from irlbook.data.records import ReasoningTrace
from irlbook.errors import UninformativeDataError
from irlbook.posttraining.prompt_choice import (
    PromptReward,
    fit_prompt_reward,
    question_features,
)

__all__ = [
    "StepClassifier",
    "arithmetic_value",
    "equation_mistake",
    "fit_step_classifier",
    "found_exactly",
    "stack_mistake",
]

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
_PARTNER = {")": "(", "]": "[", "}": "{", ">": "<"}


def arithmetic_value(text: str, names: dict[str, float] | None = None) -> float | None:
    """The value of an expression of numbers, known names, + - * and brackets; else None.

    Nothing is executed: the expression is parsed, and any other construct gives None.
    """
    known = names or {}

    def value(node: ast.AST) -> float:
        match node:
            case ast.Expression(body=body):
                return value(body)
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.Name(id=name) if name in known:
                return known[name]
        raise ValueError(ast.dump(node))

    try:
        return value(ast.parse(text.strip(), mode="eval"))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


_PHRASE = re.compile(r"(?<![A-Za-z])[-+*()\d\sA-Z=.]*=[-+*()\d\sA-Z=.]*(?![a-z])")


def equation_mistake(trace: ReasoningTrace) -> int | None:
    """The first step with two sides of "=" that have different values, or None.

    A name that a step sets ("A = (4 * 3) = 12") keeps the last value that is written for it.
    """
    names: dict[str, float] = {}
    for i, step in enumerate(trace.steps):
        for phrase in _PHRASE.findall(step):
            sides = [side.strip().strip(".") for side in phrase.split("=")]
            label = re.fullmatch(r"[A-Z]", sides[0])
            own = sides[1:] if label else sides
            values = [v for side in own if (v := arithmetic_value(side, names)) is not None]
            if any(abs(v - values[0]) > 1e-9 for v in values):
                return i
            if label and values:
                names[sides[0]] = values[-1]
    return None


def stack_mistake(trace: ReasoningTrace) -> int | None:
    """The first step "x ; stack: ..." of a chain on brackets that is not what x does to a stack.

    Each step is judged from the true stack. It is also wrong where x is not the question's next
    symbol. Two closing sentences are checked as well: what "the final stack is", and which symbols
    "we will need to pop out". Steps of another form are passed over.
    """
    symbols = [c for c in trace.question.split("Input:")[-1] if c in "()[]{}<>"]
    stack: list[str] = []
    done = 0
    for i, step in enumerate(trace.steps):
        match = re.match(r"\s*([()\[\]{}<>])\s*;\s*stack:(.*)$", step, re.DOTALL)
        if match is None:
            if _closing_is_wrong(step, stack):
                return i
            continue
        symbol, claimed = match.group(1), [c for c in match.group(2) if c in "()[]{}<>"]
        if done >= len(symbols) or symbol != symbols[done]:
            return i
        done += 1
        if symbol in _PARTNER:
            if not stack or stack[-1] != _PARTNER[symbol]:
                return i
            stack.pop()
        else:
            stack.append(symbol)
        if claimed != stack:
            return i
    return None


def _closing_is_wrong(step: str, stack: list[str]) -> bool:
    """Whether one of the two closing sentences contradicts the true stack."""
    for opening, true in (("final stack is", stack), ("need to pop out", stack[::-1])):
        if opening in step:
            said = step.split(opening)[1].split(".")[0]
            return [c for c in said if c in "()[]{}<>"] != true
    return False


@dataclass(frozen=True)
class StepClassifier:
    """Chance that each step of a chain is the first wrong one, from words and place.

    Attributes: model: of steps, given that none before was wrong.
    """

    model: PromptReward

    def first_mistake(self, trace: ReasoningTrace) -> int | None:
        """The likeliest of: each step, or none."""
        hazard = self.model.chances(_step_features(trace))[:, 0]
        alive = np.concatenate([[1.0], np.cumprod(1 - hazard)])
        chance = np.append(hazard * alive[:-1], alive[-1])
        best = int(chance.argmax())
        return None if best == len(hazard) else best


def _step_features(trace: ReasoningTrace, buckets: int = 256) -> np.ndarray:
    """(S, F) of the steps: words, place (one of ten), share of the way, whether it is the last."""
    n = len(trace.steps)
    words = question_features(list(trace.steps), buckets)
    place = np.eye(10)[np.minimum(np.arange(n), 9)]
    way = (np.arange(n) + 1) / n
    return np.column_stack([words, place, way, way == 1])


def fit_step_classifier(traces: Sequence[ReasoningTrace], l2: float = 0.1) -> StepClassifier:
    """Learn the chance that a step is wrong, given that all before it were right.

    Steps behind the first mistake are left out: nobody labelled them.

    Raises: UninformativeDataError: no chain, or no mistake.
    """
    rows, labels = [], []
    for trace in traces:
        until = len(trace.steps) if trace.first_mistake is None else trace.first_mistake + 1
        rows.append(_step_features(trace)[:until])
        labels += [i == trace.first_mistake for i in range(until)]
    if not any(labels) or all(labels):
        raise UninformativeDataError("the chains hold no mistake, or nothing else.")
    return StepClassifier(fit_prompt_reward(np.vstack(rows), np.array(labels)[:, None], l2))


def found_exactly(
    traces: Sequence[ReasoningTrace], checker: Callable[[ReasoningTrace], int | None]
) -> np.ndarray:
    """(N,) whether the checker names exactly the labelled place, None included."""
    return np.array([checker(trace) == trace.first_mistake for trace in traces])
