"""The shipped models are what their cards say, and what the recipe makes."""

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from typer.testing import CliRunner

from irlbook import data
from irlbook.cli import app
from irlbook.errors import FolderInUseError, ModelNotFoundError
from irlbook.lm import models
from irlbook.posttraining import book_models
from irlbook.posttraining.book_models import SEEDS, SHIPPED, Recipe
from irlbook.posttraining.reward_workers import FileReward
from irlbook.profiles import Profile
from irlbook.tasks import reviews

CARDS = {s: json.loads((SHIPPED / f"reviews-{s}" / "card.json").read_text()) for s in SEEDS}
SHORT = Recipe(demonstrations=300, held_out=16, steps=3, tokenizer_texts=200)


def test_the_shipped_models_are_small_and_safe():
    files = [file for file in SHIPPED.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 5e6
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".jinja"}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_card_tells_the_recipe_and_the_training_that_worked(seed):
    card = CARDS[seed]
    assert card["recipe"] == asdict(Recipe())
    loss = list(card["loss"].values())
    assert card["seed"] == seed and loss[0] > 3 and card["held_out_loss"] < 1.05
    assert card["ended"] >= 0.95  # trap 16: a model whose end token carries no loss never stops


@pytest.mark.parametrize("seed", SEEDS)
def test_the_shipped_weights_are_those_of_the_card(seed):
    model, tokenizer = book_models.load(seed)
    assert next(model.parameters()).dtype == torch.float32
    again = book_models.gold_of_samples(model, tokenizer, seed)
    # One rounding may change a draw, and then all draws behind it: within two standard errors.
    assert abs(again["gold"] - CARDS[seed]["gold"]) < 2 * CARDS[seed]["gold_se"]


def test_seeds_differ_in_weights_and_share_the_tokenizer():
    (a, first), (b, second) = book_models.load(0), book_models.load(1)
    assert first.get_vocab() == second.get_vocab() == book_models.tokenizer().get_vocab()
    assert not torch.equal(next(a.parameters()), next(b.parameters()))


def test_the_recipe_starts_as_it_did_when_the_model_was_made():
    assert book_models.short_run(0) == pytest.approx(CARDS[0]["short_run"], abs=0.02)
    assert book_models.short_run(1, steps=2) != pytest.approx(CARDS[0]["short_run"][:2], abs=0.02)


def test_a_model_is_built_saved_and_found_again(tmp_path):
    card = book_models.build(7, tmp_path / "m", SHORT, progress=False)
    model, _ = models.load_lm(tmp_path / "m")
    assert card == json.loads((tmp_path / "m" / "card.json").read_text())
    assert models.count_parameters(model) > 200_000
    book_models.build(7, tmp_path / "m", SHORT, progress=False)  # it may replace itself


def test_a_seed_that_does_not_ship_says_how_to_make_it():
    with pytest.raises(ModelNotFoundError, match="irlbook models train FOLDER --seed 99"):
        book_models.folder(99)


def test_a_profiles_model_is_fine_tuned_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(book_models, "DEMONSTRATIONS", 40)
    monkeypatch.setattr(book_models, "FINE_TUNING", {"steps": 2, "learning_rate": 1e-3})
    start = book_models.folder(3)
    profile = Profile(model=str(start), cache=tmp_path)
    first = book_models.folder(0, profile)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert first.is_relative_to(tmp_path) and book_models.folder(0, profile) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    model, _ = book_models.load(0, profile)
    shipped, _ = book_models.load(3)
    assert not torch.equal(next(model.parameters()), next(shipped.parameters()))


def test_another_model_in_the_same_folder_is_tuned_again(tmp_path, monkeypatch):
    monkeypatch.setattr(book_models, "DEMONSTRATIONS", 40)
    monkeypatch.setattr(book_models, "FINE_TUNING", {"steps": 1, "learning_rate": 1e-3})
    profile = Profile(model=str(tmp_path / "start"), cache=tmp_path / "cache")
    shutil.copytree(book_models.folder(3), tmp_path / "start")
    first = book_models.folder(0, profile)
    shutil.copy(book_models.folder(4) / "model.safetensors", tmp_path / "start")
    second = book_models.folder(0, profile)
    assert second != first and first.exists()
    monkeypatch.setattr(book_models, "FINE_TUNING", {"steps": 2, "learning_rate": 1e-3})
    assert book_models.folder(0, profile) not in (first, second)


def test_the_world_is_written_once_as_files_that_the_commands_read(tmp_path):
    done = CliRunner().invoke(app, ["world", str(tmp_path / "w"), "--pairs", "6"])
    assert done.exit_code == 0 and len(done.stdout.splitlines()) == 5
    models.load_lm(tmp_path / "w" / "model")
    pairs = data.read_preferences(tmp_path / "w" / "preferences.jsonl")
    held_out = data.read_preferences(tmp_path / "w" / "held_out.jsonl")
    assert len(pairs) == 6 and len(held_out) == 2 and not set(pairs) & set(held_out)
    assert len(data.read_demonstrations(tmp_path / "w" / "demonstrations.jsonl")) == 24
    gold = FileReward(tmp_path / "w" / "gold.py", "gold")
    one = pairs[0]
    assert gold([one.prompt], [one.chosen]) == [reviews.gold(one.prompt, one.chosen)]
    with pytest.raises(FolderInUseError, match="Give another"):
        book_models.write_world(tmp_path / "w")


def test_the_command_makes_a_model_again(tmp_path, monkeypatch):
    monkeypatch.setattr(book_models, "Recipe", lambda: SHORT)
    done = CliRunner().invoke(app, ["models", "train", str(tmp_path / "m"), "--seed", "7"])
    assert done.exit_code == 0 and "held_out_loss" in done.output
    assert json.loads((tmp_path / "m" / "card.json").read_text())["seed"] == 7
