"""The one setting of the language-model chapters."""

from pathlib import Path

import pytest

from irlbook import profiles
from irlbook.errors import InvalidHyperparameterError


def test_nothing_set_is_the_books_own_model_on_the_cpu():
    profile = profiles.load({})
    assert profile == profiles.Profile()
    assert (profile.model, profile.preferences, profile.device) == (None, None, "cpu")


def test_every_variable_is_read(tmp_path):
    profile = profiles.load(
        {
            "IRLBOOK_MODEL": "some/model",
            "IRLBOOK_PREFERENCES": "pairs.jsonl",
            "IRLBOOK_DEVICE": "cuda",
            "IRLBOOK_PRECISION": "bfloat16",
            "IRLBOOK_CACHE": str(tmp_path),
            "UNRELATED": "x",
        }
    )
    assert profile == profiles.Profile("some/model", "pairs.jsonl", "cuda", "bfloat16", tmp_path)


def test_an_empty_variable_counts_as_not_set_and_a_home_is_expanded():
    assert profiles.load({"IRLBOOK_MODEL": ""}).model is None
    assert profiles.load({"IRLBOOK_CACHE": "~/x"}).cache == Path.home() / "x"


@pytest.mark.parametrize("name", ["DEVICE", "PRECISION"])
def test_an_unknown_choice_names_the_variable_and_the_choices(name):
    with pytest.raises(InvalidHyperparameterError, match=f"IRLBOOK_{name} is 'tpu'; use .* or "):
        profiles.load({f"IRLBOOK_{name}": "tpu"})
