"""docs/wrong_answers.csv says what the checks demand and which wrong answer breaks what."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from irlbook.authoring import requirements
from irlbook.exercises import all_exercises, get
from irlbook.exercises.expect import expect, expect_close, fail

ROOT = Path(__file__).resolve().parents[1]


def test_the_list_is_up_to_date_and_names_every_wrong_answer():
    text = (ROOT / requirements.PAGE).read_text(encoding="utf-8")
    assert text == requirements.renewed(), "run python -m irlbook.authoring.requirements"
    head, *rows = csv.reader(text.splitlines())
    assert tuple(head) == requirements.HEAD
    planted = {
        (e.id, name) for e in all_exercises() if e.chapter < "90" for name in e.wrong_answers
    }
    assert {(row[0], row[3]) for row in rows if row[3]} == planted
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert "No demand in it is without a wrong answer." in page
    assert [row[:3] for row in rows if not row[3]] == []


def test_the_first_page_counts_the_wrong_answers():
    coded = [e for e in all_exercises() if e.chapter < "90" and e.check is not None]
    mean = sum(len(e.wrong_answers) for e in coded) / len(coded)
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert round(mean) == 15 and "plausible wrong answers, fifteen on average," in page


MOST = 0.95


def _check(answer, rng):
    mistakes = {"it is twice too large": 2.0}
    mistakes["the sign is wrong"] = -1.0
    for odd in (True, False):
        expect_close(
            answer(),
            1.0,
            property="it is one" if odd else f"it is {rng} again",
            hint="count to one",
            mistakes=mistakes,
        )
    if answer() > 3:
        fail("it is small", "look at it")
    expect(True, property="nobody breaks this", hint="...", detail="it has many legs")


def _check_with_a_number(answer, rng):
    most = 3
    expect(answer() < MOST, property=f"at most {MOST:.0%} of {most}, or {MOST}", hint="...")


def test_a_number_of_the_module_is_written_as_the_message_prints_it():
    (demand,) = requirements.demands(_check_with_a_number)
    assert demand.text == "at most 95% of …, or 0.95"
    exercise = replace(get("19.3"), check=_check_with_a_number)
    exercise = replace(exercise, wrong_answers={"all": ("", "at most 95 ?%")})
    assert [row[2:] for row in requirements.rows(exercise)] == [(demand.text, "all", "")]


def test_each_demand_stands_with_the_answers_that_break_it():
    texts = [demand.text for demand in requirements.demands(_check)]
    assert texts == ["it is one", "it is … again", "it is small", "nobody breaks this"]
    wrong = {
        "negative": ("", "sign is wrong"),
        "ten": ("", "is small"),
        "spider": ("", "many legs"),
        "no number": ("", "shape"),
    }
    exercise = replace(get("19.3"), check=_check, wrong_answers=wrong)
    assert [row[2:] for row in requirements.rows(exercise)] == [
        ("it is one", "negative", "it looks as if the sign is wrong"),
        ("it is … again", "negative", "it looks as if the sign is wrong"),
        ("it is small", "ten", ""),
        ("nobody breaks this", "spider", "it has many legs"),
        ("", "no number", "shape"),
    ]
    exercise = replace(exercise, wrong_answers={"ten": ("", "is small")})
    assert ("nobody breaks this", "", "") in [row[2:] for row in requirements.rows(exercise)]


def _check_with_names(answer, rng):
    cases = {"low": ("few", 1.0), "high": ("many of them", 9.0)}
    for kind, (size, value) in cases.items():
        expect_close(answer(kind), value, property=f"it is right for {size}", hint="...")
    for name in ("tea", "milk"):
        expect(answer(name), property=f"{name} is no number", hint="...")
    wrong = {"you counted twice": 2.0}
    seen = next((mistake for mistake, one in wrong.items() if one == answer()), None)
    if seen:
        detail = f"it looks as if {seen}"
    else:
        detail = "step 3 differs"
    expect(answer() == 1.0, property="it counts once", hint="...", detail=detail)


def test_a_name_in_a_message_stands_for_what_it_is_set_to():
    texts = [demand.text for demand in requirements.demands(_check_with_names)]
    sizes = ["it is right for few", "it is right for many of them"]
    assert texts == [*sizes, "tea is no number", "milk is no number", "it counts once"]
    wrong = {
        "small": ("", "for few"),
        "twice": ("", "counted twice"),
        "late": ("", "step 3 differs"),
    }
    exercise = replace(get("19.3"), check=_check_with_names, wrong_answers=wrong)
    assert [row[2:] for row in requirements.rows(exercise)] == [
        (sizes[0], "small", ""),
        (sizes[1], "", ""),
        ("tea is no number", "", ""),
        ("milk is no number", "", ""),
        ("it counts once", "twice", "it looks as if you counted twice"),
        ("it counts once", "late", "step 3 differs"),
    ]
