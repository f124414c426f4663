"""The references of the chapters against docs/references.bib, and the ways into the book."""

import doctest
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from irlbook.authoring.notebooks import read

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
SOFTWARE = re.compile(r"`[\w/]+\.py`")  # an item that names a file of a program is no work


@pytest.fixture(scope="module")
def extension(request):
    """Import a module of docs/_ext by name."""
    pytest.importorskip("sphinx", reason="the extra docs is not installed")
    pytest.importorskip("pybtex", reason="the extra docs is not installed")
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "docs" / "_ext"))


def items(bibliography, path: Path) -> list[str]:
    text = "\n\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    return [i for i in bibliography.items_of(text) if not SOFTWARE.search(i)]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_reference_of_a_chapter_has_an_entry_with_the_same_arxiv_number(extension, path):
    bibliography = extension("bibliography")
    listed = items(bibliography, path)
    assert listed, f"{path.name} lists no references"
    for item in listed:
        found = bibliography.meant_by(item)
        assert found, f"{path.name}: docs/references.bib has no entry for: {item}"
        said = set(re.findall(r"arXiv (\d{4}\.\d{4,5})", item))
        assert said <= {reference.arxiv for reference in found}, f"{path.name}: {item}"


def test_every_entry_is_listed_by_a_chapter(extension):
    bibliography = extension("bibliography")
    assert {r.key for r in bibliography.references()} == set(bibliography.cited())


def test_numbers_of_works_have_the_form_of_such_numbers_and_stand_once(extension):
    references = extension("bibliography").references()
    for reference in references:
        assert re.fullmatch(r"(10\.\d{4,9}/\S+)?", reference.doi), reference.key
        assert re.fullmatch(r"(\d{4}\.\d{4,5})?", reference.arxiv), reference.key
    for field in ("doi", "arxiv"):
        given = [getattr(r, field) for r in references if getattr(r, field)]
        assert len(given) == len(set(given)), field


def test_an_item_is_matched_by_author_title_and_year(extension):
    bibliography = extension("bibliography")

    def keys(item: str) -> list[str]:
        return [reference.key for reference in bibliography.meant_by(item)]

    assert keys("E. Todorov. *Efficient computation of optimal actions.* PNAS, 2009.") == [
        "todorov2009efficient"
    ]
    assert keys("E. Todorov. *Efficient computation of optimal actions.* PNAS, 2010.") == []
    assert keys("E. Somebody. *Efficient computation of optimal actions.* PNAS, 2009.") == []
    assert keys("R. Nakano et al. WebGPT. arXiv 2112.09332 (the estimator 11.12).") == [
        "nakano2021webgpt"
    ]


@pytest.mark.parametrize("name", ["equations", "crossrefs", "front", "figures", "solutions"])
def test_the_examples_in_the_sites_extensions_hold(extension, name):
    assert doctest.testmod(extension(name)).failed == 0


def test_mentions_of_chapters_are_found_as_readers_understand_them(extension):
    crossrefs = extension("crossrefs")

    def numbers(text: str) -> list[int]:
        found = [m.group() for m in crossrefs.CHAPTERS.finditer(text)]
        return [n for mention in found for _, n in crossrefs.pieces(mention) if n is not None]

    assert numbers("chapters 6 and 7 found; Chapter 10 asks") == [6, 7, 10]
    assert numbers("Part I (chapters 1 to 3) and chapters 4, 5 and 9") == [1, 3, 4, 5, 9]
    assert numbers("chapter 6.2 is no chapter, nor is a chapter of 2018") == []
    assert numbers("chapters 8 and 18). In it") == [8, 18]


def test_terms_are_found_as_whole_words_the_longest_first(extension):
    crossrefs = extension("crossrefs")
    from irlbook.authoring.glossary import Term

    terms = [Term(("policy iteration",), "", 1), Term(("modified policy iteration",), "", 1)]
    terms += [Term(("DAgger",), "", 4), Term(("nat",), "", 3)]
    pattern = crossrefs.mention(terms)

    def found(text: str) -> list[str]:
        return [m["term"] for m in pattern.finditer(text) if m["term"]]

    assert found("Modified policy iteration, natural nats") == ["Modified policy iteration", "nats"]
    assert found("DAgger is no dagger") == ["DAgger"]


def test_solutions_and_model_answers_are_folded_below_a_warning(extension):
    fold = extension("solutions").fold
    source = ROOT / "solutions" / "06_maximum_entropy_irl.ipynb"
    cells = fold(json.loads(source.read_text(encoding="utf-8")))["cells"]
    assert "{warning}" in cells[0]["source"]
    code = [c for c in cells if "### BEGIN SOLUTION" in "".join(c["source"])]
    answers = [c for c in cells if "<!-- answer" in "".join(c["source"])]
    assert code and answers
    assert all("hide-input" in c["metadata"]["tags"] for c in code)
    assert all(c["source"].startswith("<details>") for c in answers)


# The ways in --------------------------------------------------------------------------------------


def test_binder_and_the_development_container_install_from_files_that_exist(tmp_path):
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    assert "-c constraints.txt -e '.[test]'" in container["postCreateCommand"]
    text = (ROOT / ".binder" / "requirements.txt").read_text(encoding="utf-8")
    # Without a network: the same file, less the address of PyTorch's own builds.
    offline = "\n".join(line for line in text.splitlines() if "index-url" not in line)
    trial = ROOT / ".binder" / f"trial-{tmp_path.name}.txt"
    trial.write_text(offline, encoding="utf-8")
    try:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--dry-run"]
        options = ["--no-deps", "--no-index", "--no-build-isolation", "-r", str(trial)]
        done = subprocess.run([*pip, *options], cwd=ROOT, capture_output=True, text=True)
    finally:
        trial.unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Would install irlbook" in done.stdout
