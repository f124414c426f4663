"""The one setting of the language-model chapters."""

from pathlib import Path

import pytest

from irlbook import profiles
from irlbook.errors import DataNotFoundError, InvalidHyperparameterError


def test_nothing_set_is_the_books_own_model_on_the_cpu():
    profile = profiles.load({})
    assert profile == profiles.Profile()
    assert (profile.model, profile.preferences, profile.device) == (None, None, "cpu")


def test_every_variable_is_read(tmp_path):
    profile = profiles.load(
        {
            "IRLBOOK_MODEL": "some/model",
            "IRLBOOK_PREFERENCES": "Anthropic/hh-rlhf",
            "IRLBOOK_DEVICE": "cuda",
            "IRLBOOK_PRECISION": "bfloat16",
            "IRLBOOK_CACHE": str(tmp_path),
            "UNRELATED": "x",
        }
    )
    assert profile == profiles.Profile(
        "some/model", "Anthropic/hh-rlhf", "cuda", "bfloat16", tmp_path
    )


def test_an_empty_variable_counts_as_not_set_and_a_home_is_expanded():
    assert profiles.load({"IRLBOOK_MODEL": ""}).model is None
    assert profiles.load({"IRLBOOK_CACHE": "~/x"}).cache == Path.home() / "x"


@pytest.mark.parametrize("name", ["DEVICE", "PRECISION"])
def test_an_unknown_choice_names_the_variable_and_the_choices(name):
    with pytest.raises(InvalidHyperparameterError, match=f"IRLBOOK_{name} is 'tpu'; use .* or "):
        profiles.load({f"IRLBOOK_{name}": "tpu"})


def test_preferences_that_are_not_there_are_told_before_a_chapter_begins(tmp_path):
    with pytest.raises(DataNotFoundError, match="^IRLBOOK_PREFERENCES: No data under 'typo.jsonl'"):
        profiles.load({"IRLBOOK_PREFERENCES": "typo.jsonl"})
    (tmp_path / "pairs.jsonl").touch()
    path = str(tmp_path / "pairs.jsonl")
    assert profiles.load({"IRLBOOK_PREFERENCES": path}).preferences == path


def test_paths_are_seen_from_the_folder_of_the_one_who_typed_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").touch()
    (tmp_path / "sets").mkdir()
    typed = {
        "IRLBOOK_PREFERENCES": "pairs.jsonl",
        "IRLBOOK_MODEL": "owner/name",
        "IRLBOOK_CACHE": "new",
        "IRLBOOK_DATA": "sets",
        "IRLBOOK_DEVICE": "cpu",
        "HOME": "sets",
    }
    whole = {
        "IRLBOOK_PREFERENCES": str(tmp_path / "pairs.jsonl"),
        "IRLBOOK_CACHE": str(tmp_path / "new"),
        "IRLBOOK_DATA": str(tmp_path / "sets"),
    }
    assert profiles.whole_paths(typed) == {**typed, **whole}
    assert profiles.whole_paths({"IRLBOOK_MODEL": ""}) == {"IRLBOOK_MODEL": ""}
