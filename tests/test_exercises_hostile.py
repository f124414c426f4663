"""A share of the hostile answers and files of tests/attack, small enough for every run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "attack"))

import hostile
from answers import ANSWERS
from files import EARNS, FILES

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the attacks are POSIX's")

FEW_ANSWERS = [
    *("imports the check", "reads it in C", "goes through a linked folder", "takes the solution"),
    *("empties the hook, then imports", "patches numpy", "forges a reply", "patches the codec"),
    *("shares one buffer 10,000 times", "sends a set of colliding keys", "outlives its run"),
    *("sends a huge empty sparse matrix", "writes outside in C", "digs 1,100 folders deep"),
]
FEW_FILES = [
    *("brackets, a million deep", "cells twice, the second empty", "bait: many opening comments"),
    *(
        "last week's sheet under this week's name",
        "formula in a folder's name",
        "1,100 folders deep",
    ),
    *("script in an exception", "link to another's notebook", "a pipe", "ten gigabytes of nothing"),
    *("a dot folder", "defined with invisible letters"),
]


def test_no_hostile_answer_earns_points_or_does_harm():
    if not hostile.locked():
        pytest.skip("the kernel confines no answer here: the README names what that leaves open")
    report = hostile.attack_with_answers(FEW_ANSWERS)
    assert report.tried == len(FEW_ANSWERS) and (report.unearned, report.harm) == ([], [])


def test_no_hostile_file_earns_points_or_does_harm():
    report = hostile.attack_with_files(FEW_FILES)
    assert (report.unearned, report.harm) == ([], [])
    assert report.tried + len(report.skipped) == len(FEW_FILES)


def test_the_attacks_are_as_many_as_the_documents_say_and_named_once():
    assert len(ANSWERS) >= 100 and len(FILES) >= 100 and set(FILES) >= EARNS
    text = (Path(__file__).parents[1] / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert f"{len(ANSWERS)} hostile answers and {len(FILES)} hostile files" in text
