"""The page of licences names all that ships and all that is installed with it."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# All but those for authors, and vLLM, whose own licences were not read (the page says so).
READER = sorted(set(PROJECT["optional-dependencies"]) - {"test", "browser", "vllm"})


def first_cells(page: str) -> set[str]:
    """The first cell of each row of the page's tables, without backticks."""
    return {cell.strip(" `") for cell in re.findall(r"^\|([^|]+)\|", page, re.MULTILINE)}


def package(requirement: str) -> str:
    return re.split(r"[\[<>=]", requirement)[0]


def test_every_stored_result_has_a_row_and_every_row_of_a_result_a_file():
    there = {p.name for p in (ROOT / "irlbook" / "results").iterdir() if p.is_file()}
    rows = {cell for cell in first_cells(PAGE) if cell.endswith((".json", ".csv"))}
    assert there == rows


def test_every_shipped_model_is_named():
    for folder in (ROOT / "irlbook" / "pretrained").iterdir():
        assert f"`{folder.name}`" in PAGE


@pytest.mark.parametrize("extra", [None, *READER])
def test_every_package_that_a_reader_installs_has_a_row(extra):
    wanted = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    assert {package(one) for one in wanted} - {"irlbook"} <= first_cells(PAGE)


def test_the_licence_of_the_project_is_the_one_that_the_page_names():
    assert PROJECT["license"] == "MIT" and "under the MIT licence" in PAGE
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    assert "\nlicense: MIT\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
