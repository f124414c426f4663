"""A sentence no stronger than its cell: each rule sees its own fault, and nothing else."""

from pathlib import Path

import pytest

from irlbook.authoring import claim_rules
from irlbook.authoring.notebooks import read
from tests.notebook_builder import notebook

SOUND = (
    "# Results",
    'verdict("it rises", after > before, measured=f"{after:.1f}")',
    'PublishedResult("Ng 2000", "fig. 1", "20", f"{found}", "agrees" if found == 20 else "no")',
    "claims = Claims('chapter 3')\np = permutation_test(x, y, rng)",
    "# References\n* Ng, A. (2000). Algorithms for inverse reinforcement learning.",
)


def found(name, *sources):
    return list(getattr(claim_rules, name)(notebook(*sources), Path("03_x.ipynb")))


@pytest.mark.parametrize("rule", claim_rules.__all__)
def test_a_sound_chapter_breaks_no_rule(rule):
    assert found(rule, *SOUND) == []


@pytest.mark.parametrize(
    "rule, source",
    [
        ("verdicts_can_fail", 'verdict("it rises", True)'),
        ("verdicts_can_fail", 'stats.verdict("it rises", holds=1 < 2)'),
        ("published_rows_are_computed", 'PublishedResult("Ng 2000", "f", 20, "20", "agrees")'),
        ("published_rows_are_computed", 'PublishedResult("N 2000", "f", 2, ours=20, verdict="a")'),
        ("published_rows_have_a_source", 'PublishedResult("Ng", "fig. 1", 20, found, "agrees")'),
        ("published_rows_have_a_source", 'PublishedResult("Fu 2018", "f", 20, found, "agrees")'),
        ("published_rows_have_a_source", 'PublishedResult("another course", "f", 2, x, "same")'),
        ("evidence_is_shown", "# Text\nIn our runs it never fell."),
        ("evidence_is_shown", "# Text\nWith beta 1 (not shown) it falls."),
        ("tests_form_a_family", "p = stats.permutation_test(x, y, rng)"),
    ],
)
def test_each_fault_is_named_by_its_rule_alone(rule, source):
    sources = [s for s in SOUND if rule != "tests_form_a_family" or "Claims" not in s]
    for other in claim_rules.__all__:
        assert len(found(other, *sources, source)) == (other == rule), other


ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem[:2])
def test_the_chapters_keep_the_rules_of_claims(path):
    broken = [
        problem
        for rule in claim_rules.__all__
        for problem in getattr(claim_rules, rule)(read(path), path)
    ]
    assert broken == []
