"""A small chapter of exercises, number 90, that the tests of the framework register for a while."""

from __future__ import annotations

import nbformat
import numpy as np

from irlbook.exercises import Criterion, Edit, Exercise
from irlbook.exercises.expect import expect, expect_close


def check_soft_backup(answer, rng):
    q = rng.normal(size=(rng.integers(2, 6), rng.integers(2, 5)))
    beta = float(rng.uniform(0.2, 3.0))
    want, top = beta * np.log(np.exp(q / beta).sum(axis=1)), q.max(axis=1)
    expect_close(
        answer(q, beta),
        want,
        property="the value is the soft maximum over actions",
        hint="V(s) = beta log sum_a exp(Q(s,a) / beta): what does each beta do?",
        mistakes={
            "you took the hard maximum": top,
            "the temperature inside the exponential is missing": top
            + beta * np.log(np.exp(q - top[:, None]).sum(axis=1)),
            "the factor beta in front is missing": want / beta,
            "you took the mean over actions, not the sum": want - beta * np.log(q.shape[1]),
        },
    )
    expect_close(
        answer(q + 5e4, beta),
        want + 5e4,
        property="large values do not overflow",
        hint="subtract the largest Q of each state before the exponential, add it again after",
    )


def check_boltzmann(answer, rng):
    q, beta = rng.normal(size=(4, 3)), float(rng.uniform(0.2, 3.0))
    got = answer(q, beta)
    want = np.exp(q / beta) / np.exp(q / beta).sum(axis=1, keepdims=True)
    expect(np.shape(got) == (4, 3), property="one probability a pair", hint="keep the axes of q")
    expect_close(
        got, want, property="pi is proportional to exp(Q / beta)", hint="normalise each state"
    )


def check_discounted_return(answer, rng):
    rewards, discount = rng.normal(size=rng.integers(3, 9)), float(rng.uniform(0.5, 0.9))
    t = np.arange(len(rewards))
    expect_close(
        answer(rewards, discount),
        float(discount**t @ rewards),
        property="the reward of step t counts discount to the power t",
        hint="which power does the first reward have?",
        mistakes={
            "the discount is missing": float(rewards.sum()),
            "the first reward is discounted already": float(discount ** (t + 1) @ rewards),
            "the powers run backwards": float(discount ** t[::-1] @ rewards),
        },
    )


HINTS = ("Read the equation aloud.", "Which axis is the sum over?", "Subtract the maximum first.")

EXERCISES = [
    Exercise(
        id="90.1",
        title="A soft backup",
        function="soft_backup",
        points=3,
        difficulty=2,
        minutes=10,
        importance=5,
        goal="You can back up values softly without overflow.",
        hints=HINTS,
        check=check_soft_backup,
        wrong_answers={
            "hard max": ("def soft_backup(q, beta):\n    return q.max(axis=1)", "hard maximum"),
            "no inner temperature": (Edit("/ beta", ""), "inside the exponential"),
            "no outer factor": (Edit("top + beta *", "top / beta +"), "in front"),
            "mean": (Edit(".sum(", ".mean("), "the mean over actions"),
            "overflow": (Edit("top = q.max(axis=1)", "top = np.zeros(len(q))"), "overflow|finite"),
            "in place": (Edit("top = q.max(axis=1)", "q -= 1; top = q.max(axis=1)"), "in place"),
        },
    ),
    Exercise(
        id="90.2",
        title="A Boltzmann policy",
        function="boltzmann",
        points=2,
        difficulty=1,
        minutes=5,
        importance=4,
        goal="You can turn values into a policy.",
        hints=HINTS,
        check=check_boltzmann,
        wrong_answers={
            "transposed": (Edit("return p", "return p.T"), "one probability a pair"),
            "no temperature": (Edit("/ beta", ""), "proportional to"),
            "not normalised": (Edit("return p", "return p * 2"), "proportional to"),
            "wrong axis": (Edit("axis=1, keep", "axis=0, keep"), "proportional to"),
            "sign": (Edit("q / beta", "-q / beta"), "proportional to"),
        },
    ),
    Exercise(
        id="90.3",
        title="A return that is slightly off",
        function="discounted_return",
        kind="bug hunt",
        points=2,
        difficulty=2,
        minutes=10,
        importance=3,
        goal="You can find an index that is off by one.",
        hints=HINTS,
        check=check_discounted_return,
        wrong_answers={
            "unchanged": (
                Edit("np.arange(len(rewards))", "(np.arange(len(rewards)) + 1)"),
                "first",
            ),
            "no discount": (Edit("discount **", "1.0 **"), "the discount is missing"),
            "backwards": (Edit("len(rewards))", "len(rewards))[::-1]"), "backwards"),
            "a vector": (Edit(".sum()", ""), "single number"),
            "nothing returned": (Edit("return ", ""), "None"),
        },
    ),
    Exercise(
        id="90.4",
        title="Why soft?",
        kind="written",
        points=4,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can say what the temperature buys.",
        hints=HINTS,
        rubric=(
            Criterion(2, "names the price of information"),
            Criterion(2, "says what happens as beta goes to 0 and to infinity"),
        ),
    ),
]

SOLUTIONS = {
    "soft_backup": '''def soft_backup(q, beta):
    """Soft values (S,) of q (S, A)."""
    ### BEGIN SOLUTION
    top = q.max(axis=1)
    return top + beta * np.log(np.exp((q - top[:, None]) / beta).sum(axis=1))
    ### END SOLUTION''',
    "boltzmann": """def boltzmann(q, beta):
    ### BEGIN SOLUTION
    p = np.exp(q / beta)
    p = p / p.sum(axis=1, keepdims=True)
    return p
    ### END SOLUTION""",
    "discounted_return": """def discounted_return(rewards, discount):
    ### BEGIN SOLUTION
    return (discount ** np.arange(len(rewards)) * rewards).sum()
    ### END SOLUTION""",
}
WRITTEN = "The temperature is the price of a nat of information."


def solution_notebook() -> nbformat.NotebookNode:
    """The solution notebook of the demo chapter."""
    new = nbformat.v4
    cells = [
        new.new_markdown_cell("# Exercises 90"),
        new.new_code_cell("import numpy as np\nfrom irlbook import exercises"),
    ]
    for exercise in EXERCISES:
        cells.append(new.new_markdown_cell(f"<!-- card {exercise.id} -->\n\nDo it."))
        if exercise.kind == "written":
            cells.append(new.new_markdown_cell(f"<!-- answer {exercise.id} -->\n{WRITTEN}"))
            continue
        cells.append(new.new_code_cell(SOLUTIONS[exercise.function]))
        call = f'exercises.check("{exercise.id}", {exercise.function})'
        hidden = f"\n### BEGIN HIDDEN TESTS\n{call[:-1]}, seed=77)\n### END HIDDEN TESTS"
        cells.append(new.new_code_cell(call + hidden))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02d}"
    notebook = new.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    return notebook
