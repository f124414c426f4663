"""What a machine hears of the book's prose: its vocabulary, its longest sentences, proselint."""

from pathlib import Path

import pytest

from irlbook.authoring import prose
from irlbook.authoring.notebooks import read
from tests.notebook_builder import notebook

ROOT = Path(__file__).parents[1]
NOTEBOOKS = [p for room in ("chapters", "solutions") for p in sorted((ROOT / room).glob("*.ipynb"))]
RULES = (prose.private_words, prose.sentences_that_are_too_long, prose.finds_of_proselint)


def heard(*sources):
    found = notebook(*(f"# Section\n\n{source}" for source in sources))
    return [problem for rule in RULES for problem in rule(found, Path("03_x.ipynb"))]


def test_a_plain_sentence_is_left_alone():
    assert heard("The loss is measured in nats per token, and $a$ is an action.") == []


@pytest.mark.parametrize(
    ("text", "say"),
    [
        ("The mend is easy.", "fix"),
        ("That bound is dear.", "expensive"),
        ("A bug was planted here.", "deliberate"),
        ("It throws less dice than RLOO.", "variance"),
        ("The price is 0.3 nats a token.", "per"),
        ("Take one label a pair.", "per"),
        ("It is unique but for a constant.", "except for"),
        ("The rule is old. Who copies the formula has the wrong sign.", "if you"),
        ("Who copies the formula has the wrong sign.", "if you"),
        ("It rises in the mean.", "on average"),
    ],
)
def test_a_private_word_is_named_with_what_to_say(text, say):
    (problem,) = heard(text)
    assert say in problem and problem.startswith("cell ")


@pytest.mark.parametrize(
    "text",
    [
        "Who is the expert?",  # a question
        "Engineers who copy the formula find out.",
        "`mend` is a name, and $\\text{dear}$ is in a formula.",
        "| mend | dear |",
        "A reward per token, and a pair a and b.",
        "# References\n* Dear, M. (2000). The mend.",
    ],
)
def test_what_only_looks_like_one_is_not(text):
    assert heard(text) == []


def test_a_long_sentence_is_counted_and_a_list_is_not_one():
    long = "This sentence names" + " an apple, a pear, some plums" * 12 + " here."
    (problem,) = heard(long)
    assert "a sentence of 64 words" in problem
    assert heard("\n".join(f"* point number {i} is short and has no stop" for i in range(9))) == []


def test_proselint_is_listened_to():
    (problem,) = heard("It is a good and and sound idea.")
    assert "lexical_illusions" in problem


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_chapters_and_exercises_are_written_in_the_books_style(path):
    broken = [problem for rule in RULES for problem in rule(read(path), path)]
    assert broken == []
