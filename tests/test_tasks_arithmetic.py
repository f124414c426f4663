"""Word problems: solutions that are right, wrong or lucky, and verifiers that tell them apart."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irlbook.errors import InvalidHyperparameterError
from irlbook.tasks import arithmetic
from irlbook.tasks.arithmetic import Operation, Problem

SAM = Problem(
    "Sam has 10 cards. Then Sam buys 3. Sam gives away 2. Then the pile doubles. How many now?",
    10,
    (Operation("+", 3), Operation("-", 2), Operation("*", 2)),
)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(SEEDS))
    most = draw(st.integers(1, 6))
    largest = draw(st.integers(4, 80))
    return arithmetic.generate(1, rng, steps=(1, most), largest=largest)[0], rng


def test_the_worked_example():
    assert arithmetic.solve(SAM) == "10+3=13. 13-2=11. 11*2=22. Answer: 22"
    assert (SAM.values, SAM.answer) == ([10, 13, 11, 22], 22)
    check = arithmetic.check(SAM, arithmetic.solve(SAM))
    assert check.sound and not check.lucky and len(check.steps) == 3


def test_problems_keep_to_their_range_and_their_text():
    drawn = arithmetic.generate(500, np.random.default_rng(0))
    assert {len(problem.operations) for problem in drawn} == {2, 3, 4}
    for problem in drawn:
        assert all(1 <= value <= 69 for value in problem.values)
        assert any(operation.operator != "*" for operation in problem.operations)
        amounts = [o.amount for o in problem.operations if o.operator != "*"]
        assert [
            int(word.strip(".")) for word in problem.text.split() if word.strip(".").isdigit()
        ] == [
            problem.start,
            *amounts,
        ]
    assert {o.operator for p in drawn for o in p.operations} == {"+", "-", "*"}
    assert arithmetic.generate(9, np.random.default_rng(1)) == arithmetic.generate(
        9, np.random.default_rng(1)
    )


@given(problems())
def test_each_kind_of_solution_is_what_it_says(case):
    problem, rng = case
    assert all(1 <= value for value in problem.values)
    assert arithmetic.check(problem, arithmetic.solve(problem)).sound
    for wrong in (arithmetic.misread, arithmetic.skipped):
        check = arithmetic.check(problem, wrong(problem, rng))
        assert not check.answer_right and not check.sound and not check.lucky
    lucky = arithmetic.check(problem, arithmetic.lucky(problem, rng))
    assert lucky.lucky and lucky.first_wrong is not None
    assert not arithmetic.check(problem, arithmetic.hasty(problem, rng)).sound


def test_hasty_answers_are_right_one_time_in_five():
    rng = np.random.default_rng(0)
    drawn = arithmetic.generate(2000, rng)
    right = [arithmetic.answer_is_right(p, arithmetic.hasty(p, rng)) for p in drawn]
    assert np.mean(right) == pytest.approx(0.2, abs=0.03)


STEPS = [
    ("3+10=13. 13-2=11. 11+11=22. Answer: 22", None, True),  # other ways to say the same
    ("10+3=14. 14-2=11. 11*2=22. Answer: 22", 0, True),  # two errors cancel
    ("10+3=13. 11*2=22. Answer: 22", 1, True),  # a step is missing
    ("10+3=13. 13-2=11. 11*2=22. 22+0=22. Answer: 22", 3, True),  # one too many
    ("10+3=13. 13-2=11. 11*2=22. Answer: 23", None, False),
    ("10+3=13. 13-2=11. 11*2=22.", None, False),  # no answer given
    ("10-3=7. 7-2=5. 5*2=10. Answer: 10", 0, False),
    ("10+3=13. 2-13=11. 11*2=22. Answer: 22", 1, True),  # minus does not commute
    ("12+1=13. 13-2=11. 11*2=22. Answer: 22", 0, True),  # true, but not of this pile
    ("Answer: 22", None, True),
    ("Answer: 22. 10+3=14.", None, True),  # what comes after the answer is no step
    ("10+3=13.5. Answer: 22", None, True),  # not an equation of this world
]


@pytest.mark.parametrize(("solution", "first_wrong", "right"), STEPS)
def test_steps_by_hand(solution, first_wrong, right):
    check = arithmetic.check(SAM, solution)
    assert (check.first_wrong, check.answer_right) == (first_wrong, right)
    assert check.sound == (solution == STEPS[0][0])
    assert check.lucky == (right and not check.sound)


@given(st.one_of(st.text(), st.text(alphabet="0123456789+-*=. A:#,$", max_size=80)))
def test_verifiers_never_raise(text):
    arithmetic.check(SAM, text)
    arithmetic.last_number(text)
    arithmetic.is_correct(text, "7")


def test_verifiers_read_hostile_numbers():
    for text in (
        "A: " + "9" * 5000,
        "1+1=" + "9" * 5000,
        "A: ²",
        "A: ٣",
        "#### " * 5000,
        "A: -" * 999,
    ):
        assert arithmetic.final_answer(text) is None
        assert not arithmetic.check(SAM, text).steps


FINAL = [
    ("so it is 18.\nA: 18", 18),
    ("#### 1,234", 1234),
    ("#### 1,234,567.50", "1234567.5"),
    ("A: $12.00", 12),
    ("A: -$3", -3),
    ("A: $-3", -3),
    ("Answer: +.5", "0.5"),
    ("answer: 18 dollars.", 18),
    ("**Answer:** 18", 18),
    (r"\boxed{42}", 42),
    ("A: 50%", 50),
    ("A: 5\nA: 6", 6),  # the last mark counts
    ("A: 5\nA: I do not know", None),
    ("A: 3/4", None),
    ("A: 9+John's age", None),
    ("A: 1,00", None),
    ("A: 1.2.3", None),
    ("A: 1e5", None),
    ("DNA: 18", None),
    ("18", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "number"), FINAL)
def test_final_answers_by_hand(text, number):
    assert arithmetic.final_answer(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("He has 18 left.", 18),
        ("20-2=18", 18),
        ("from 5 to -3", -3),
        ("1,200 $", 1200),
        ("no", None),
    ],
)
def test_last_number(text, number):
    assert arithmetic.last_number(text) == number


@given(st.integers(-(10**9), 10**9), st.integers(0, 3))
def test_numbers_compare_by_value_not_by_spelling(number, zeros):
    spelled = f"{number:,}" + ("." + "0" * zeros if zeros else "")
    assert arithmetic.is_correct(f"A: {spelled}", f"He thinks.\n#### {number}")
    assert arithmetic.is_correct(f"#### {number}", spelled)
    assert not arithmetic.is_correct(f"#### {number + 1}", spelled)


def test_a_truth_without_number_is_refused():
    with pytest.raises(InvalidHyperparameterError, match="holds no number"):
        arithmetic.is_correct("A: 1", "none")


def test_demonstrations_follow_the_mix():
    rng = np.random.default_rng(0)
    drawn = arithmetic.generate(2000, rng)
    assert all(
        arithmetic.check(p, d.response).sound
        for p, d in zip(drawn[:50], arithmetic.demonstrations(drawn[:50], rng), strict=True)
    )
    mixed = arithmetic.demonstrations(drawn, rng, arithmetic.MIXED)
    checks = [arithmetic.check(p, d.response) for p, d in zip(drawn, mixed, strict=True)]
    assert np.mean([c.sound for c in checks]) == pytest.approx(0.45, abs=0.04)
    assert np.mean([c.lucky for c in checks]) == pytest.approx(0.2 * 0.2, abs=0.015)
    assert [d.prompt for d in mixed] == [p.text for p in drawn]
    lucky = arithmetic.demonstrations(drawn[:20], rng, {"lucky": 1.0})
    assert all(arithmetic.check(p, d.response).lucky for p, d in zip(drawn, lucky, strict=False))


@pytest.mark.parametrize(
    "mix", [{}, {"careful": 0.5}, {"brilliant": 1.0}, {"careful": 2, "hasty": -1}]
)
def test_mix_is_checked(mix):
    with pytest.raises(InvalidHyperparameterError, match="sum to 1"):
        arithmetic.demonstrations([SAM], np.random.default_rng(0), mix)


@pytest.mark.parametrize("setting", [{"steps": (0, 2)}, {"steps": (3, 2)}, {"largest": 3}])
def test_generator_settings_are_checked(setting):
    with pytest.raises(InvalidHyperparameterError):
        arithmetic.generate(1, np.random.default_rng(0), **setting)


@pytest.mark.parametrize(
    "solution",
    [
        "10 + 3 = 13. 13 - 2 = 11. 11 * 2 = 22. Answer: 22",
        "10+3=13.13-2=11.11*2=22.Answer: 22",
        "10+3 =13.\n13-2= 11.\n11 *2=22.\nAnswer: 22",
    ],
)
def test_spaces_and_full_stops_hide_no_step(solution):
    found = arithmetic.check(SAM, solution)
    assert found.sound and len(found.steps) == 3


def test_a_decimal_is_still_no_step():
    assert not arithmetic.check(SAM, "10+3=13.5. Answer: 22").steps
    assert arithmetic.check(SAM, "10+3=13.14-2=12. Answer: 22").first_wrong == 1


@given(problems())
def test_misreading_goes_below_zero_only_where_it_must(case):
    problem, rng = case
    written = arithmetic.misread(problem, rng)
    turned = [
        arithmetic._flipped(problem, i).values
        for i, o in enumerate(problem.operations)
        if o.operator != "*"
    ]
    if any(min(values) >= 0 for values in turned):
        assert "=-" not in written


def test_an_answer_may_be_a_remainder():
    sam = Problem(SAM.text, SAM.start, SAM.operations, 5)
    assert sam.answer == 2
    assert arithmetic.check(sam, "10+3=13. 13-2=11. 11*2=22. Answer: 2").sound
