"""`irlbook doctor MODEL`: every kind of model gets a report, and no one gets a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from architectures import build
from transformers import PreTrainedTokenizerBase

from irlbook.lm import models
from irlbook.lm.models import add_lora, load_reward_model, save, tiny_lm
from irlbook.lm.tokenization import train_tokenizer
from irlbook.posttraining import book_models, model_check
from irlbook.posttraining.model_check import check_model, memory_needed


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(["Who is there? A friend."] * 3, 280)


def verdicts(report):
    return {one.what: one.verdict for one in report.findings}


def test_the_books_model_can_do_everything():
    report = check_model(book_models.folder(0))
    assert report.ok and set(verdicts(report).values()) == {"yes"}, report.lines()
    text = "\n".join(report.lines())
    for words in ("272,640 parameters", "512 tokens", "<|eos|>", "<|pad|>", "rloo --lora 8"):
        assert words in text


@pytest.mark.parametrize("kind", ["run", "adapter", "reward model"])
def test_whatever_a_run_leaves_is_looked_at(kind, tokenizer, tmp_path):
    model = tiny_lm(tokenizer, hidden=16)
    base = save(model, tokenizer, tmp_path / "base")
    if kind == "run":
        name = save(model, tokenizer, tmp_path / "run" / "model").parent
    elif kind == "adapter":
        loaded, _ = models.load_lm(base)
        name = save(add_lora(loaded, rank=2), tokenizer, tmp_path / "lora")
    else:
        name = save(*load_reward_model(base, new_head=True), tmp_path / "reward")
    report = check_model(name)
    assert report.ok, report.lines()
    assert ("sampled" in verdicts(report)) == (kind != "reward model")
    assert ("memory, reward" in verdicts(report)) == (kind == "reward model")


def test_a_hybrid_is_said_to_be_slow_and_is_fine(tokenizer, tmp_path):
    model = build("Lfm2", vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=1, eos_token_id=2)
    report = check_model(save(model, tokenizer, tmp_path / "lfm2"))
    found = verdicts(report)
    assert report.ok and found["scored"] == found["sampled"] == "note"
    assert any("plain rows" in line for line in report.lines())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eos_token": None}, "no end token"),
        ({"chat_template": {"rag": "x"}}, "none is called default"),
    ],
)
def test_a_tokenizer_that_cannot_end_or_write_a_chat_is_a_no(change, words, tokenizer, tmp_path):
    own = train_tokenizer(["Who is there?"], 280)
    own.chat_template = None
    for name, value in change.items():
        setattr(own, name, value)
    report = check_model(save(tiny_lm(own, hidden=16), own, tmp_path / "lm"))
    assert not report.ok and words in "\n".join(report.lines())


def test_pad_that_ends_and_no_template_are_notes(tmp_path):
    own = train_tokenizer(["Who is there?"], 280)
    own.chat_template, own.pad_token = None, own.eos_token
    report = check_model(save(tiny_lm(own, hidden=16), own, tmp_path / "lm"))
    assert report.ok
    assert verdicts(report)["pad"] == verdicts(report)["chat template"] == "note"
    assert any("pads with <|pad|>" in line for line in report.lines())


def test_diverged_weights_are_found(tokenizer, tmp_path):
    model = tiny_lm(tokenizer, hidden=16)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    report = check_model(save(model, tokenizer, tmp_path / "lm"))
    assert not report.ok and verdicts(report)["scored"] == "no"


@pytest.mark.parametrize("content", [None, "", "{", '{"model_type": "nothing"}', "{}", "[1]"])
def test_a_folder_that_holds_no_model_is_no_traceback(content, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    report = check_model(tmp_path)
    assert not report.ok and report.lines()[0].startswith("NO")


def test_a_missing_device_or_folder_is_a_no(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "PyTorch sees none" in check_model(tmp_path, "cuda").lines()[0]
    assert "there is no folder" in check_model(tmp_path / "nothing").lines()[0]


def test_what_does_not_fit_names_what_does(tokenizer, monkeypatch, tmp_path):
    folder = save(tiny_lm(tokenizer, hidden=64), tokenizer, tmp_path / "lm")
    model = models.load_lm(folder)[0]
    most = memory_needed(model, "rloo")
    monkeypatch.setattr(model_check, "free_memory", lambda _: most - 2**20)
    report = check_model(folder)
    assert report.ok  # the others fit
    (line,) = [str(one) for one in report.findings if one.what == "memory, rloo"]
    fewer = int(line.split("--max-tokens ")[1].split()[0])
    assert memory_needed(model, "rloo", tokens=fewer) <= most - 2**20 < most
    monkeypatch.setattr(model_check, "free_memory", lambda _: 2**20)
    report = check_model(folder)
    assert not report.ok and "a smaller model" in "\n".join(report.lines())


def test_memory_grows_as_the_formula_says(tokenizer):
    model = tiny_lm(tokenizer, hidden=64)
    weights = models.count_parameters(model)
    # weights, gradients, moments; online two more copies; a tenth more for each
    assert memory_needed(model, "sft", tokens=0) == int(1.1 * 16 * weights)
    assert memory_needed(model, "rloo", tokens=0) == int(1.1 * 24 * weights)
    adapter = models.count_parameters(add_lora(tiny_lm(tokenizer, hidden=64)), trainable=True)
    assert memory_needed(model, "sft", 8, tokens=0) == int(1.1 * (4 * weights + 16 * adapter))


MEASURED = """
import re, sys, torch
from pathlib import Path
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.models import add_lora, tiny_lm
from irlbook.posttraining import dpo, sft
from irlbook.posttraining.model_check import memory_needed
from irlbook.training.config import TrainingConfig
from irlbook.training.loop import train

def peak():
    # Not ru_maxrss: that of a child begins with its parent's.
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

method, lora = sys.argv[1], int(sys.argv[2]) or None
draw = torch.Generator().manual_seed(0)
ids = lambda n: torch.randint(3, 8000, (n,), generator=draw).tolist()
answers = 1 if method == "sft" else 2
groups = [(ids(32), [ids(96) for _ in range(answers)]) for _ in range(32)]
tiny = tiny_lm(50, hidden=16)
few = [([1, 2], [[3, 4]] * answers)] * 2
objective = sft.objective if method == "sft" else lambda groups: dpo.objective()
config = TrainingConfig(steps=2, batch_size=32, max_tokens=2048, progress=False)
train(ResponseScorer(tiny), few, objective(few), config)  # what torch and accelerate cost
before = peak()
model = tiny_lm(8000, hidden=256, layers=4)
need = memory_needed(model, method, lora, tokens=2048)
if lora:
    model = add_lora(model, rank=lora)
train(ResponseScorer(model), groups, objective(groups), config)
print((peak() - before) / need)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("method", "lora"), [("sft", 0), ("dpo", 0), ("sft", 8)])
def test_the_formula_is_near_what_a_run_takes(method, lora):
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, method, str(lora)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 0.5 <= float(done.stdout) <= 1.25
