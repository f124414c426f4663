"""A model that does not fit is refused with its numbers, before its weights are read."""

from __future__ import annotations

import json

import pytest
import torch

from irlbook.errors import ModelTooLargeError
from irlbook.lm import memory, models
from irlbook.lm.memory import check_room, free_memory, size
from irlbook.lm.models import count_parameters, load_lm, load_reward_model, save, tiny_lm
from irlbook.lm.tokenization import template_note, train_tokenizer
from irlbook.posttraining import pipeline
from irlbook.posttraining.configs import Source


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model with a template, one without, and data for each command."""
    folder = tmp_path_factory.mktemp("world")
    tokenizer = train_tokenizer(["Who is there? A friend."], 280)
    model = tiny_lm(tokenizer, hidden=16)
    save(model, tokenizer, folder / "lm")
    save(*load_reward_model(folder / "lm", new_head=True), folder / "reward")
    tokenizer.chat_template = None
    save(model, tokenizer, folder / "base")
    rows = [{"prompt": "Who?", "chosen": "A friend.", "rejected": "I."}] * 4
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"prompt": "Who?", "completion": "A friend."}] * 4
    (folder / "shown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def free(monkeypatch):
    """Set the bytes that are free; weights that are read all the same are an error."""

    def set_to(number):
        monkeypatch.setattr(memory, "free_memory", lambda device: number)

    return set_to


def test_sizes_are_words_and_free_memory_is_a_number():
    assert [size(5 * 2**20), size(3 * 2**29)] == ["5 MiB", "1.5 GiB"]
    assert free_memory("cpu") > 2**20


def test_a_container_s_limit_counts(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert free_memory("cpu") == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory("cpu") > 2_000_000


def test_what_fits_by_a_byte_is_taken_and_what_does_not_is_refused(free):
    free(4 * 1000)
    check_room("m", 1000, torch.float32, {"cpu"})
    check_room("m", 2000, torch.bfloat16, {"cpu"})
    with pytest.raises(ModelTooLargeError, match=r"1,001 weights take 0 MiB in float32; 0 MiB are"):
        check_room("m", 1001, torch.float32, {"cpu"})
    with pytest.raises(ModelTooLargeError, match=r"and 0 MiB more to train them; .*--lora 8"):
        check_room("m", 1000, torch.float32, {"cpu"}, 1)


def test_on_a_gpu_only_the_weights_pass_through_memory(monkeypatch):
    room = {"cpu": 4000, "cuda": 16000}
    monkeypatch.setattr(memory, "free_memory", room.get)
    check_room("m", 1000, torch.float32, {"cpu", "cuda"}, 12)
    with pytest.raises(ModelTooLargeError, match="memory of cpu"):
        check_room("m", 1001, torch.float32, {"cpu", "cuda"})
    room["cpu"] = 8000
    with pytest.raises(ModelTooLargeError, match="memory of cuda"):
        check_room("m", 1001, torch.float32, {"cpu", "cuda"}, 12)


@pytest.mark.parametrize("kind", ["lm", "reward"])
def test_a_loader_refuses_before_it_reads(kind, world, free, monkeypatch):
    load = load_lm if kind == "lm" else load_reward_model
    weights = count_parameters(load(world / kind)[0])
    free(4 * weights)
    load(world / kind)
    load(world / kind, more=0)
    with pytest.raises(ModelTooLargeError, match=f"its {weights:,} weights"):
        load(world / kind, more=1)
    free(4 * weights - 1)
    monkeypatch.setattr(models, "_load_weights", lambda *a: pytest.fail("the weights were read"))
    with pytest.raises(ModelTooLargeError, match=f"its {weights:,} weights .* 0 MiB are free"):
        load(world / kind)
    free(2 * weights)
    with pytest.raises(pytest.fail.Exception):  # half of it fits
        load(world / kind, dtype=torch.bfloat16)


def commands(world):
    lm, reward, pairs = world / "lm", world / "reward", world / "pairs.jsonl"
    out = ("--out", world / "out")
    train = ("--model", lm, "--data", pairs, *out)
    return {
        "sample": ("sample", lm, "--prompt", "Who?"),
        "score": ("score", "--model", reward, "--data", pairs),
        "sft": ("train", "sft", "--model", lm, "--data", world / "shown.jsonl", *out),
        "reward": ("train", "reward", *train),
        "dpo": ("train", "dpo", *train),
        "rloo": ("train", "rloo", *train, "--reward", reward),
        "raft": ("train", "raft", *train, "--reward", reward),
        "iterative": ("train", "iterative", *train, "--reward", reward),
        "doctor": ("doctor", lm),
    }


@pytest.mark.parametrize("name", commands(pipeline.Path()))
def test_every_command_that_loads_a_model_says_it_in_one_line(name, world, free, call):
    free(1000)
    code, out, err = call(*commands(world)[name])
    text = out if name == "doctor" else err
    (line,) = [line for line in text.splitlines() if "does not fit into the memory of cpu" in line]
    assert code == 1 and "0 MiB are free" in line
    assert not (world / "out" / "model").exists()


def test_training_counts_what_it_will_need_and_an_adapter_needs_less(world, free, tmp_path):
    weights = count_parameters(load_lm(world / "lm")[0])
    source = Source(world / "lm", world / "shown.jsonl")
    free(16 * weights - 1)
    load_lm(world / "lm")
    with pytest.raises(ModelTooLargeError, match="--lora 8"):
        pipeline.train_sft(source, tmp_path / "out")


def test_a_base_model_without_a_template_is_named(world, call, tmp_path):
    assert template_note(load_lm(world / "lm")[1]) == []
    code, _, err = call("sample", world / "base", "--prompt", "Who?", "--max-new-tokens", 2)
    assert code == 0 and "no chat template" in err
    run = ("--data", world / "shown.jsonl", "--out", tmp_path / "run", "--epochs", 1)
    code, out, err = call("train", "sft", "--model", world / "base", *run)
    assert code == 0 and "no chat template" in out, err
