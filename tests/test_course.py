"""docs/teaching.md and docs/lessons.md say what the chapters, the cards and the checks say."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from irlbook.authoring import course, lessons
from irlbook.authoring.notebooks import read
from irlbook.authoring.repository import chapters
from irlbook.authoring.requirements import demands
from irlbook.exercises import all_exercises, get

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")


def test_the_generated_parts_are_up_to_date():
    assert course.renewed(ROOT) == {}, "run python -m irlbook.authoring.course"


def test_no_chapter_needs_a_later_one_and_each_but_the_first_needs_some():
    for path in chapters(ROOT):
        number = int(path.stem[:2])
        needs, helps = course.prerequisites(read(path))
        assert all(n < number for n in needs + helps) and not set(needs) & set(helps)
        assert bool(needs) == (number > 1), path.name


@pytest.mark.parametrize(
    ("text", "needs", "helps"),
    [
        ("**You need** chapter 1 (a) and chapter 3 (b). From chapter 5 a word.", [1, 3], [5]),
        ("**Before it** you need [chapter 1](01_x.ipynb): a. Torch helps.", [1], []),
        ("**Prerequisites.** Chapter 3 (a); chapter 2 (b) helps. **Survey**: chapter 4.", [3], [2]),
        (
            "**You need** chapter 2, chapter 3. Chapters 4 and 5 help. **In the survey**",
            [2, 3],
            [4, 5],
        ),
        ("No word about it.", [], []),
    ],
)
def test_what_a_chapter_needs_is_read_from_its_own_sentence(text, needs, helps):
    cells = [
        nbformat.v4.new_markdown_cell("# 6 \u00b7 A chapter"),
        nbformat.v4.new_markdown_cell(text),
    ]
    assert course.prerequisites(nbformat.v4.new_notebook(cells=cells)) == (needs, helps)


def test_a_syllabus_never_takes_a_chapter_before_what_it_needs():
    needs = {int(p.stem[:2]): set(course.prerequisites(read(p))[0]) for p in chapters(ROOT)}
    order = [
        int(n)
        for n in re.search(r"in this order\): ([\d, and]+)", PAGE)[1].replace("and", ",").split(",")
        if n.strip()
    ]
    semester = PAGE.split("**A semester**")[1].split("**Self-study**")[0]
    weeks = [
        int(n) for row in re.findall(r"\| \d+ \| ([\d, ]+) \|", semester) for n in row.split(",")
    ]
    assert weeks == list(range(16))
    for syllabus in (order, weeks):
        for place, chapter in enumerate(syllabus):
            assert needs[chapter] <= set(syllabus[:place]), chapter


def test_the_minutes_of_the_module_are_those_of_the_cards():
    module = PAGE.split("**A module of four weeks**")[1].split("**A semester**")[0]
    rows = re.findall(r"\| ex\. ([^|]+) \| (\d+) \|", module)
    assert len(rows) == 4
    for text, minutes in rows:
        total = 0
        for chapter, first, last in re.findall(r"(\d+)\.(\d+)\u2013\d+\.(\d+)", text):
            total += sum(
                get(f"{int(chapter):02d}.{n}").minutes for n in range(int(first), int(last) + 1)
            )
        assert total == int(minutes), text


LESSONS = (ROOT / "docs" / "lessons.md").read_text(encoding="utf-8").split("\n## ")[1:]


@pytest.mark.parametrize("text", LESSONS, ids=lambda text: text.split(" ")[0])
def test_a_lesson_has_what_to_say_what_to_show_and_each_exercise(text):
    number = int(text.split(" ")[0])
    say = text.split("**To say first.**")[1].split("**Figures")[0]
    assert say.count("\n* ") >= 4 and "\n* Figure" in text and "\n**In the survey.** " in text
    for exercise in all_exercises(f"{number:02d}") + all_exercises(f"{number:02d}L"):
        (row,) = re.findall(rf"^\| {exercise.id.lstrip('0')} \| .*$", text, re.MULTILINE)
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert cells[2:4] == [str(exercise.minutes), f"{exercise.points:g}"] and cells[6]


def test_every_link_of_the_lessons_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", "".join(LESSONS))
    assert len(links) > 60 and all((ROOT / "docs" / link).exists() for link in links)


def test_mistakes_are_those_that_the_check_names_else_the_planted_ones():
    assert lessons.likely_mistakes(get("03.1"))[0] == "you took the hard maximum"
    assert lessons.likely_mistakes(get("06.4"))[0] in get("06.4").wrong_answers
    assert lessons.likely_mistakes(get("03.6")) == []
    for exercise in all_exercises():
        named = [m for d in demands(exercise.check) for m in d.mistakes] if exercise.check else []
        if named:
            assert set(lessons.likely_mistakes(exercise)) == set(named), exercise.id


def test_the_list_of_a_summary_is_taken_whole_and_its_links_hold():
    summary = (
        "Text.\n\n## Summary\n\n- one\n  two\n\n* [x](02_y.ipynb)\n\nAfter.\n\n## Next\n\n* no"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(summary)])
    assert lessons.five_minutes(book) == "* one\n  two\n* [x](../chapters/02_y.ipynb)"
