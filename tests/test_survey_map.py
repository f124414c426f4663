"""docs/survey.md has a row for every item of the survey, and its links lead to headings."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from irlbook.authoring.repository import chapters

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "survey.md").read_text(encoding="utf-8")

SECTIONS = {"1": 3, "2": 4, "3": 4, "4": 5}
PARTS = {
    "the survey": [
        *(f"§{s}" for s in SECTIONS),
        *(f"§{s}.{k}" for s, last in SECTIONS.items() for k in range(1, last + 1)),
        *(f"Table {k}" for k in range(1, 6)),
        *(f"Figure {k}" for k in (1, 2)),
        *(f"Equation {k}" for k in range(1, 7)),
        *("Theorem 2.1", "Remark 2.2", "Theorem 2.3", "Remark 2.4"),
        *(f"Box: {name}" for name in ("RLHF", "DPO", "Fisher information", "Prompt-OIRL")),
    ],
    "open problems": [
        f"Open: {name}"
        for name in (
            "missing reward",
            "compute",
            "no silver bullet",
            "reward non-uniqueness",
            "annotation",
            "informative pairs",
            "heterogeneous preferences",
            "reasoning or format",
            "dense rewards",
            "prompts by query",
            "richer feedback",
            "credit assignment",
            "token and trajectory rewards",
            "over-optimisation",
            "length and position bias",
            "off-policy data",
            "generalisation",
        )
    ],
    "the tutorial": [
        f"Part 5: {name}"
        for name in ("shaping", "credit assignment", "hindsight", "dense or sparse", "self-play")
    ],
    "the abstract": [
        f"Promised: {name}"
        for name in (
            "data sets",
            "benchmarks",
            "metrics",
            "infrastructure",
            "efficient training",
            "efficient inference",
        )
    ],
}


def rows(page: str) -> dict[str, list[str]]:
    """Item -> the other cells of its row."""
    found: dict[str, list[str]] = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 5 and cells[0] != "item" and not cells[0].startswith("---"):
            assert cells[0] not in found, f"two rows {cells[0]}"
            found[cells[0]] = cells[1:]
    return found


def slug(heading: str) -> str:
    """The anchor that the site gives a heading (MyST's rule, which is GitHub's)."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace(" ", "-"))


def anchors(path: Path) -> dict[str, str]:
    """Anchor -> heading, for the headings of the first three levels outside code."""
    found: dict[str, str] = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL)
            for heading in re.findall(r"^#{1,3} (.+)$", text, flags=re.MULTILINE):
                found[slug(heading)] = heading
    return found


def faults(page: str) -> list[str]:
    """What is wrong with the links of the page."""
    headings = {path.name: anchors(path) for path in chapters(ROOT)}
    wrong = []
    for label, file, anchor in re.findall(r"\[([^\]]+)\]\(\.\./chapters/([^)#]+)#([^)]+)\)", page):
        heading = headings.get(file, {}).get(anchor)
        if heading is None:
            wrong.append(f"{label}: no heading {anchor} in {file}")
            continue
        chapter, _, section = label.partition(" §")
        if int(re.match(r"\d+", chapter)[0]) != int(file[:2]):
            wrong.append(f"{label}: leads to {file}")
        if section and not re.match(rf"{re.escape(section)}[ .](?!\d)", heading):
            wrong.append(f"{label}: leads to the heading {heading}")
    return wrong


@pytest.mark.parametrize("part", PARTS)
def test_every_item_has_a_row(part):
    assert [item for item in PARTS[part] if item not in rows(PAGE)] == []


def test_every_link_leads_to_the_heading_that_it_names():
    assert faults(PAGE) == []
    with_a_heading = re.findall(r"\]\(\.\./chapters/[^)#]+#[^)]+\)", PAGE)
    assert PAGE.count("](../chapters/") == len(with_a_heading)


def test_a_link_to_another_section_or_chapter_or_to_none_is_found():
    good = re.search(r"\[10 §4\]\([^)]+\)", PAGE)[0]
    for bad in (
        good.replace("§4", "§5"),
        good.replace("[10", "[11"),
        good.replace("4--", "5--"),
        good.replace("10_language", "10_languages"),
    ):
        assert faults(bad), bad
    assert faults(good) == []


def test_an_item_without_a_chapter_says_that_it_is_not_taught():
    for item, (_, taught, measured, missing) in rows(PAGE).items():
        if "](" not in taught:
            assert "not taught" in missing, item
            assert not measured, f"{item} is taught nowhere: where is it measured?"


def test_what_is_said_not_to_be_taught_is_not_in_the_text_of_a_chapter():
    """A name in "… are not taught" that a chapter treats since would make the page untrue."""
    text = "\n".join(
        cell.source
        for path in chapters(ROOT)
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown" and not cell.source.startswith("## References")
    )
    for name in ("DataCOPE", "LIMA", "PhaseEvo"):
        assert name in PAGE
        assert not re.search(rf"\b{name}\b", text), f"{name} is in a chapter now: change its row"
