"""Runs of a chapter that are stored: what is made, what is read, and how the file is made again."""

import json

import nbformat
import numpy as np
import pytest

from irlbook.authoring.remake_runs import main, remake
from irlbook.errors import CheckpointError, DataNotFoundError, ResumeMismatchError
from irlbook.posttraining import stored_runs
from irlbook.posttraining.stored_runs import (
    MAKING,
    REMADE,
    RESULTS,
    StoredRuns,
    bundle,
    mean_gap,
    read_stored,
)

SETTINGS = {"steps": 3, "rate": 0.1}


def write(folder, settings=SETTINGS, **runs):
    (folder / "toy.json").write_text(json.dumps({"settings": settings, "runs": runs}))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, plain={"0": [1.0, 2.0], "1": [3.0, 4.0]})


def test_a_seed_that_runs_here_is_made_and_another_is_read(folder):
    runs = StoredRuns("toy", SETTINGS, here=(0,), folder=folder)
    assert runs.get("plain", 0, lambda: np.array([1.0, 2.00000049])) == [1.0, 2.0]
    assert runs.get("plain", 1, lambda: pytest.fail("it is stored")) == [3.0, 4.0]
    assert runs.stored("plain", 0) == [1.0, 2.0]


def test_another_model_reads_nothing(tmp_path):
    runs = StoredRuns("there is none", SETTINGS, used=False, folder=tmp_path)
    assert runs.get("plain", 1, lambda: {"gold": np.float64(0.5)}) == {"gold": 0.5}
    assert runs.stored("plain", 1) is None


def test_settings_that_differ_are_named(folder):
    with pytest.raises(ResumeMismatchError, match="another rate; make it again"):
        StoredRuns("toy", SETTINGS | {"rate": 0.2}, folder=folder)


@pytest.mark.parametrize("text", [None, "", "{", '{"settings": {}}'])
def test_a_file_that_is_missing_or_broken_says_how_to_make_it(tmp_path, text):
    if text is not None:
        (tmp_path / "toy.json").write_text(text)
    with pytest.raises(DataNotFoundError, match=r"toy\.json .*remake_runs"):
        StoredRuns("toy", {}, folder=tmp_path)


@pytest.mark.parametrize("asked", [("other", 1), ("plain", 2)])
def test_a_run_that_is_not_stored_is_named(folder, asked):
    runs = StoredRuns("toy", SETTINGS, folder=folder)
    with pytest.raises(DataNotFoundError, match=rf"'{asked[0]}' of seed {asked[1]}"):
        runs.get(*asked, lambda: 0)


def test_while_a_file_is_made_each_run_is_kept_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv(MAKING, str(tmp_path / "parts"))
    made = []

    def make(seed):
        made.append(seed)
        return [float(seed), float("nan")]

    for _ in range(2):
        runs = StoredRuns("toy", SETTINGS, folder=folder)
        for seed in (1, 10, 2):
            assert runs.get("plain", seed, lambda s=seed: make(s)) == [seed, None]
    assert made == [1, 10, 2]  # the second time they are read
    StoredRuns("toy", SETTINGS | {"steps": 4}).get("plain", 1, lambda: make(1))
    assert made[3:] == [1]  # other settings are another run
    with pytest.raises(ResumeMismatchError, match="several settings"):
        bundle(tmp_path / "parts" / "toy", tmp_path / "out.json")


def test_the_bundle_holds_settings_versions_and_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv(MAKING, str(tmp_path))
    for seed in (10, 2):
        StoredRuns("toy", SETTINGS).get("plain", seed, lambda s=seed: {"gold": s})
    whole = bundle(tmp_path / "toy", tmp_path / "out" / "toy.json")
    assert whole["runs"] == {"plain": {"2": {"gold": 2}, "10": {"gold": 10}}}
    assert list(whole["runs"]["plain"]) == ["2", "10"]
    assert whole["settings"] == SETTINGS and "torch" in whole["made_with"]
    assert json.loads((tmp_path / "out" / "toy.json").read_text()) == whole


def test_a_part_that_is_broken_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(MAKING, str(tmp_path))
    StoredRuns("toy", SETTINGS).get("plain", 0, lambda: 1)
    (part,) = (tmp_path / "toy").glob("*.json")
    part.write_text("{")
    with pytest.raises(CheckpointError, match="remove it"):
        StoredRuns("toy", SETTINGS).get("plain", 0, lambda: 1)
    with pytest.raises(DataNotFoundError, match="holds no run"):
        bundle(tmp_path / "empty", tmp_path / "out.json")


def test_the_gap_is_a_mean_over_the_first_rows():
    one = [{"kl": 0.0, "gold": 1.0, "loss": 9}, {"kl": 0.5, "gold": 1.0}, {"kl": 7, "gold": 7}]
    other = [{"kl": 0.1, "gold": 1.0}, {"kl": 0.5, "gold": 0.7}, {"kl": 0, "gold": 0}]
    assert mean_gap(one, other, ("kl", "gold"), 2) == pytest.approx(0.1)


def test_three_rows_are_compared_if_nothing_is_said():
    one, other = [{"kl": 1.0}] * 4, [{"kl": 1.0}, {"kl": 2.0}, {"kl": 1.5}, {"kl": 99.0}]
    assert mean_gap(one, other, ["kl"]) == pytest.approx(0.5)


def test_the_seconds_of_all_runs_are_added_up(tmp_path):
    for k, seconds in enumerate((1.4, 2.3)):
        part = {"what": "plain", "seed": k, "settings": {}, "record": k, "seconds": seconds}
        (tmp_path / f"{k}.json").write_text(json.dumps(part))
    whole = bundle(tmp_path, tmp_path / "out" / "toy.json")
    assert whole["cpu_seconds"] == 4
    assert set(whole["made_with"]) == {"python", "irlbook", "torch", "transformers", "numpy"}
    runs = StoredRuns("toy", {}, folder=tmp_path / "out")
    assert runs.stored("plain", 1) == 1 and runs.here == frozenset({0})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (1234567.0, 1234570.0),
        (np.float32(0.12345678), 0.123457),
        ({2: (np.inf, -np.inf)}, {"2": [None, None]}),
        (np.arange(3), [0, 1, 2]),
        ({"text": "1.23456789", "whole": 123456789}, {"text": "1.23456789", "whole": 123456789}),
    ],
)
def test_six_digits_of_a_number_are_kept_and_all_of_a_text(tmp_path, given, kept):
    runs = StoredRuns("none", {}, used=False, folder=tmp_path)
    assert runs.get("plain", 0, lambda: given) == kept


def test_a_chapter_makes_its_own_file(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(MAKING, raising=False)
    cell = (
        "from irlbook.posttraining.stored_runs import StoredRuns\n"
        "runs = StoredRuns('toy', {'steps': 1})\n"
        "print([runs.get('square', s, lambda s=s: s * s) for s in (0, 3)])"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbformat.write(book, tmp_path / "chapter.ipynb")
    given = [str(tmp_path / "chapter.ipynb"), "--parts", str(tmp_path / "parts")]
    assert main([*given, "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'toy.json'}\n"
    found = json.loads((tmp_path / "toy.json").read_text())
    assert found["runs"] == {"square": {"0": 0, "3": 9}}
    assert MAKING not in stored_runs.os.environ
    monkeypatch.setenv(MAKING, "elsewhere")
    assert remake(given[0], tmp_path / "parts", tmp_path) == [tmp_path / "toy.json"]
    assert stored_runs.os.environ[MAKING] == "elsewhere"


# The files that ship


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        (
            "preferences",
            {"beta 0.01", "beta 0.3", "beta 1", "again, beta 0.01", "again, beta 0.3"}
            | {"gradients", "coverage"},
        ),
        (
            "policy_gradients",
            {"start", "no baseline", "REINFORCE", "RLOO", "GRPO", "PPO"}
            | {"wrong sign", "right sign, same price"},
        ),
    ],
)
def test_the_stored_runs_are_complete(name, runs):
    found = json.loads((RESULTS / f"{name}.json").read_text())
    assert set(found["runs"]) == runs
    assert all(set(seeds) == {"0", "1", "2", "3", "4"} for seeds in found["runs"].values())
    assert {"torch", "numpy", "python"} <= set(found["made_with"]) and found["cpu_seconds"] > 0


def test_two_seeds_are_further_apart_than_chapter_14_allows_of_one():
    found = json.loads((RESULTS / "preferences.json").read_text())["runs"]
    for what in ("beta 0.01", "beta 0.3", "beta 1"):
        looks = [[row for row in found[what][str(seed)] if "plus" in row] for seed in range(5)]
        gaps = [mean_gap(looks[0], other, ("plus", "minus"), 2) for other in looks[1:]]
        assert min(gaps) > 2 * 0.05


def test_a_file_that_was_made_again_is_read_in_the_place_of_the_books(tmp_path, monkeypatch):
    monkeypatch.setenv(REMADE, str(tmp_path))
    write(tmp_path, plain={"0": [5.0]})
    assert StoredRuns("toy", SETTINGS, here=()).stored("plain", 0) == [5.0]
    assert read_stored(RESULTS / "toy.json", "a command")["runs"] == {"plain": {"0": [5.0]}}
    assert read_stored(RESULTS / "hindsight.json", "a command")["runs"]  # not made again
    with pytest.raises(DataNotFoundError, match="elsewhere"):
        read_stored(tmp_path / "elsewhere" / "toy.json", "a command")


def test_a_chapter_that_makes_no_run_reads_while_others_are_made(folder, tmp_path, monkeypatch):
    monkeypatch.setenv(MAKING, str(tmp_path / "parts"))
    runs = StoredRuns("toy", SETTINGS, here=(), folder=folder)
    assert runs.stored("plain", 1) == [3.0, 4.0]
