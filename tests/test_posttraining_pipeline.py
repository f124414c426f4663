"""From files to trained models, by the command and from Python."""

import copy
import csv
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM

from irlbook.data import (
    Demonstration,
    Preference,
    Unpaired,
    read_demonstrations,
    write_demonstrations,
    write_preferences,
    write_unpaired,
)
from irlbook.errors import (
    ContextLengthError,
    EmptyDataError,
    InvalidDataError,
    InvalidHyperparameterError,
    MalformedRowsError,
    ResumeMismatchError,
    RewardError,
)
from irlbook.lm import models
from irlbook.lm.logprobs import ResponseScorer, token_logps
from irlbook.lm.sampling import sample
from irlbook.lm.tokenization import (
    encode_prompt,
    encode_response,
    end_id,
    stop_ids,
    train_tokenizer,
)
from irlbook.lm.trees import collate
from irlbook.posttraining import dpo, encoding, files, pipeline, reward_model
from irlbook.training import TrainingConfig, checkpoints
from irlbook.training.metrics_file import read_metrics

TOPICS = ("cafe", "hotel", "film", "phone", "gym", "book", "bus", "park")
QUIET = {"progress": False, "tensorboard": False}
FAST = ["--batch-size", "4", "--learning-rate", "0.003"]


def prompt(i: int) -> str:
    return f"Review the {TOPICS[i % 8]}, number {i}."


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a small model and a file of each kind."""
    folder = tmp_path_factory.mktemp("world")
    texts = [prompt(i) + " It was good. It was bad. Very much so." for i in range(8)]
    tokenizer = train_tokenizer(texts, 290)
    model = models.tiny_lm(tokenizer, hidden=16, heads=2, context=64)
    models.save(model, tokenizer, folder / "start")
    config = BertConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16)  # fmt: skip
    models.save(BertForMaskedLM(config), tokenizer, folder / "encoder")
    models.save(models.tiny_lm(270, hidden=16, heads=2), tokenizer, folder / "misfit")
    for name, lacks in (("padless", "pad_token"), ("plain", "chat_template")):
        other = train_tokenizer(texts, 290)
        setattr(other, lacks, None)
        models.save(model, other, folder / name)
    good, bad = "It was good.", "It was bad. Very much so."
    pairs = [Preference(prompt(i), good, bad, margin=i / 4) for i in range(12)]
    write_preferences(folder / "pairs.jsonl", pairs)
    shown = [Demonstration(prompt(i), good) for i in range(12)]
    write_demonstrations(folder / "shown.jsonl", shown)
    talk = [{"prompt": [{"role": "user", "content": "Hi."}],
             "chosen": [{"role": "assistant", "content": good}],
             "rejected": [{"role": "assistant", "content": bad}]}] * 4  # fmt: skip
    (folder / "talk.jsonl").write_text("\n".join(map(json.dumps, talk)))
    labelled = [Unpaired(prompt(i), good if i % 2 else bad, bool(i % 2)) for i in range(12)]
    write_unpaired(folder / "labelled.jsonl", labelled)
    return folder


def test_the_commands_hand_one_another_their_models(world, call, tmp_path):
    """sft, then dpo from it, then a reward model, then scores: files in, files out."""
    code, out, err = call("train", "sft", "--model", world / "start", "--out", tmp_path / "sft",
                          "--data", world / "shown.jsonl", "--epochs", 4, *FAST)  # fmt: skip
    assert code == 0, err
    assert "12 rows, 12 kept" in out and "model:" in out and "loss" in out
    rows = read_metrics(tmp_path / "sft" / "metrics.csv")
    assert len(rows) == 12 and rows[-1]["loss"] < rows[0]["loss"]

    code, out, err = call("train", "dpo", "--model", tmp_path / "sft", "--out", tmp_path / "dpo",
                          "--data", world / "pairs.jsonl", "--held-out", world / "pairs.jsonl",
                          "--epochs", 6, "--beta", 0.2, "--kl-prompts", 3, *FAST)  # fmt: skip
    assert code == 0, err
    rows = read_metrics(tmp_path / "dpo" / "metrics.csv")
    assert rows[0]["step"] == 0 and rows[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert rows[0]["held_out_loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert rows[1]["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert rows[-1]["held_out_accuracy"] == 1.0 and abs(rows[-1]["kl"]) > 1e-3

    code, out, err = call("train", "reward", "--model", tmp_path / "sft", "--margin",
                          "--out", tmp_path / "rm", "--data", world / "pairs.jsonl",
                          "--pooling", "sum", "--epochs", 3, *FAST)  # fmt: skip
    assert code == 0, err
    assert json.loads((tmp_path / "rm/model/config.json").read_text())["reward_pooling"] == "sum"

    code, out, err = call("score", "--model", tmp_path / "rm", "--data", world / "pairs.jsonl",
                          "--out", tmp_path / "scores.csv")  # fmt: skip
    assert code == 0, err
    assert "scores higher in 100.0% of 12 pairs" in out
    with open(tmp_path / "scores.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["response"] for row in table[:2]] == ["chosen", "rejected"] and len(table) == 24

    code, out, _ = call("score", "--model", tmp_path / "dpo", "--reference", tmp_path / "sft",
                        "--data", world / "pairs.jsonl", "--beta", 0.2)  # fmt: skip
    assert code == 0 and "100.0% of 12 pairs" in out
    code, out, _ = call("score", "--model", tmp_path / "sft", "--kind", "demonstrations",
                        "--data", world / "shown.jsonl")  # fmt: skip
    assert code == 0 and "mean score -" in out


def test_scores_that_are_no_numbers_are_an_error_and_not_a_result(world, call, tmp_path):
    model, tokenizer = models.load_lm(world / "start")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    models.save(model, tokenizer, tmp_path / "nan")
    code, out, err = call("score", "--model", tmp_path / "nan", "--data", world / "pairs.jsonl")
    assert code == 1 and "next:" not in out
    assert "12 of 12 records get a score that is no finite number" in err
    assert "pairs.jsonl:1" in err


def test_samples_are_rows_that_can_be_trained_on_and_scored(world, call, tmp_path):
    """The log-probabilities that were sampled are those that `score` finds."""
    out = tmp_path / "drawn.jsonl"
    command = ("sample", world / "start", "--prompts", world / "shown.jsonl", "--n", 2,
               "--max-new-tokens", 24, "--out", out)  # fmt: skip
    code, text, err = call(*command, "--seed", 3)
    assert code == 0, err
    assert "12 rows, 12 kept" in text and "of 24 responses ended within 24 tokens" in text
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [prompt(i) for i in range(12) for _ in range(2)]
    assert set(rows[0]) == {"prompt", "completion", "logp", "ended"}
    whole = [row for row in rows if row["ended"] and "\ufffd" not in row["completion"]]
    write_demonstrations(
        tmp_path / "whole.jsonl", [Demonstration(r["prompt"], r["completion"]) for r in whole]
    )
    assert len(read_demonstrations(out)) == 24

    again = tmp_path / "again.jsonl"
    assert call(*command[:-1], again, "--seed", 3, "--batch-size", 5)[0] == 0
    other = [json.loads(line) for line in again.read_text().splitlines()]
    assert [row["completion"] for row in other] == [row["completion"] for row in rows]
    assert call(*command[:-1], again, "--seed", 4)[0] == 0
    assert again.read_text() != out.read_text()


def test_sampled_log_probabilities_are_those_of_the_scorer(world):
    model, tokenizer = models.load_lm(world / "start")
    rows, _ = files.sample_file(world / "start", [prompt(1)], n=20, max_new_tokens=8)
    cut = [row for row in rows if not row["ended"]]
    for row in cut:
        ids = encode_response(tokenizer, row["completion"], ended=False)
        if len(ids) == 8:  # the text was read back as the tokens that were drawn
            tree = collate([(encode_prompt(tokenizer, row["prompt"]), [ids])])
            assert float(token_logps(model, tree).sum()) == pytest.approx(row["logp"], abs=1e-4)


def test_a_cut_sample_is_scored_and_learned_as_it_was_drawn(world, tmp_path):
    """sample -> sft -> sample -> score: what `sample` wrote is what `score` finds, cut or ended."""
    source = pipeline.Source(world / "start", world / "shown.jsonl")
    settings = TrainingConfig(steps=150, batch_size=12, learning_rate=1e-2, **QUIET)
    sft = pipeline.train_sft(source, tmp_path / "sft", settings).model
    for tokens, ended in ((5, False), (24, True)):
        path = tmp_path / f"{tokens}.jsonl"
        _, told = files.sample_file(sft, world / "shown.jsonl", path, n=3, max_new_tokens=tokens)
        records, rows = read_demonstrations(path), list(map(json.loads, path.open()))
        assert {record.ended for record in records} == {row["ended"] for row in rows} >= {ended}
        scores, _ = files.score_file(sft, path, kind="demonstrations")
        away = [row["logp"] - score["score"] for row, score in zip(rows, scores, strict=True)]
        same = [abs(gap) < 1e-4 for gap in away]
        assert sum(same) >= 30
        assert sum(same) == 36 or f"{36 - sum(same)} of 36 responses are other tokens" in told[-1]
    _, tokenizer = models.load_lm(sft)
    coded = pipeline.encode(list(read_demonstrations(tmp_path / "5.jsonl")), tokenizer, 64)
    ends = [answers[0][-1] == end_id(tokenizer) for _, answers in coded.groups]
    assert ends == [record.ended for record in read_demonstrations(tmp_path / "5.jsonl")]


def test_sft_on_cut_samples_does_not_teach_an_end(world, tmp_path):
    """The probability of the end after the cut falls below chance; with `ended` it rises."""
    chances = {}
    for ended in (False, True):
        shown = [Demonstration(prompt(i), "It was good", ended) for i in range(12)]
        path = write_demonstrations(tmp_path / f"{ended}.jsonl", shown)
        source = pipeline.Source(world / "start", path)
        settings = TrainingConfig(steps=100, batch_size=12, learning_rate=1e-2, **QUIET)
        done = pipeline.train_sft(source, tmp_path / str(ended), settings)
        model, tokenizer = models.load_lm(done.model)
        ids = encode_response(tokenizer, "It was good")
        tree = collate([(encode_prompt(tokenizer, prompt(1)), [ids])])
        chances[ended] = float(token_logps(model, tree)[-1].detach().exp())
    assert chances[True] > 0.8 and chances[False] < 1 / 290


def test_a_prompt_given_by_hand_is_answered_on_stdout(world, call):
    arguments = ("sample", world / "start", "--prompt", "Hi.", "--prompt", "And?")
    code, out, err = call(*arguments, "--temperature", 0, "--max-new-tokens", 5)
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["prompt"] for row in rows] == ["Hi.", "And?"]
    assert "of 2 responses ended" in err and "rows" not in err
    assert call(*arguments, "--temperature", 0, "--max-new-tokens", 5)[1] == out


def test_conversations_are_answered_as_conversations(world, tmp_path):
    talk = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho."},
            {"role": "user", "content": "And?"}]  # fmt: skip
    path = tmp_path / "talk.jsonl"
    path.write_text(json.dumps({"prompt": talk}))
    rows, _ = files.sample_file(world / "start", path, tmp_path / "o.json", max_new_tokens=4)
    assert rows[0]["prompt"] == talk and rows[0]["completion"][0]["role"] == "assistant"
    assert read_demonstrations(tmp_path / "o.json")[0].prompt == talk


def test_a_model_that_never_stops_is_reported(world, tmp_path):
    model, tokenizer = models.load_lm(world / "start")
    weight = model.get_output_embeddings().weight
    with torch.no_grad():
        weight[tokenizer.eos_token_id] = 0  # tied: the end is as likely as before anything else
        weight[tokenizer.convert_tokens_to_ids("a")] *= 50
    models.save(model, tokenizer, tmp_path / "endless")
    _, lines = files.sample_file(tmp_path / "endless", ["Hi."], n=10, max_new_tokens=3)
    assert lines[0].startswith("0.0% of 10 responses ended within 3 tokens")
    assert "never shown where a response ends" in lines[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MODEL": "./nowhere"}, "no folder"),
        ({"MODEL": "encoder"}, "not a causal language model"),
        ({"--max-new-tokens": "60"}, "12 of 12 prompts leave no room.*shown.jsonl:1 ("),
        ({"--prompts": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"--out": "drawn.txt"}, "does not name a data file"),
        ({"--temperature": "-1"}, "temperature"),
        ({"--temperature": "0", "--n": "2"}, "would be the same"),
        ({"--top-p": "0"}, "top_p"),
        ({"--n": "0"}, "--n.*greater than or equal to 1"),
        ({"--device": "cuda"}, "PyTorch sees none"),
        ({"--precision": "int4"}, "is not one of 'float32', 'bfloat16'"),
    ],
)
def test_bad_sampling_is_one_message(world, call, tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    given = {"--prompts": world / "shown.jsonl", "--out": "o.jsonl", "--max-new-tokens": 8}
    given |= changes
    model = given.pop("MODEL", "start")
    model = model if model.startswith(".") else world / model
    code, _, err = call("sample", model, *[x for pair in given.items() for x in pair])
    assert code in (1, 2) and err.startswith("error: ")  # 2: the options say so themselves
    assert all(part in err for part in message.split(".*"))
    assert not list(tmp_path.glob("*o.jsonl*"))


def test_prompts_come_from_one_place(world, call):
    code, _, err = call("sample", world / "start")
    assert code == 2 and "either --prompts FILE or --prompt TEXT" in err


def test_the_same_command_goes_on_and_another_is_refused(world, call, tmp_path):
    command = ("train", "dpo", "--model", world / "start", "--data", world / "pairs.jsonl",
               "--out", tmp_path, "--steps", 3, *FAST)  # fmt: skip
    assert call(*command)[0] == 0
    before = (tmp_path / "metrics.csv").read_text()
    code, out, _ = call(*command)
    assert code == 0 and "nothing was trained" in out and "finished (3 steps)" in out
    assert (tmp_path / "metrics.csv").read_text() == before
    code, _, err = call(*command, "--seed", 1)
    assert code == 1 and "seed was 0 and is 1" in err and "Traceback" not in err
    assert call(*command, "--seed", 1, "--restart")[0] == 0
    other = models.tiny_lm(290, hidden=16, heads=2, context=64, seed=9)
    _, tokenizer = models.load_lm(world / "start")
    models.save(other, tokenizer, tmp_path / "other")
    code, _, err = call("train", "dpo", "--model", tmp_path / "other", *command[4:], "--seed", 1)
    assert code == 1 and "another model" in err


def test_a_file_that_changed_under_its_name_is_another_file(world, call, tmp_path):
    data, held_out = tmp_path / "data.jsonl", tmp_path / "held_out.jsonl"
    pairs = [Preference(prompt(i), "It was good.", "It was bad.") for i in range(8)]
    for path in (data, held_out):
        write_preferences(path, pairs)
    command = ("train", "dpo", "--model", world / "start", "--data", data, "--held-out", held_out,
               "--out", tmp_path / "o", "--steps", 2, *FAST)  # fmt: skip
    assert call(*command)[0] == 0
    os.utime(data)
    assert "nothing was trained" in call(*command)[1]  # written anew, the same rows
    write_preferences(held_out, pairs[:7])
    code, _, err = call(*command)
    assert code == 1 and "held_out was" in err and "--restart" in err
    write_preferences(held_out, pairs)
    write_preferences(data, [*pairs[:7], Preference(prompt(7), "It was bad.", "It was good.")])
    code, _, err = call(*command)
    assert code == 1 and "the examples are others" in err


def test_a_model_that_changed_a_little_is_another_model(world, tmp_path):
    """Weights that keep their sums: two rows of the embedding change places."""
    model, tokenizer = models.load_lm(world / "start")
    models.save(model, tokenizer, tmp_path / "m")
    source = pipeline.Source(tmp_path / "m", world / "pairs.jsonl")
    pipeline.train_dpo(source, tmp_path / "o", TrainingConfig(steps=1, **QUIET))
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        weight[[5, 6]] = weight[[6, 5]].clone()
    models.save(model, tokenizer, tmp_path / "m")
    with pytest.raises(ResumeMismatchError, match="another model"):
        pipeline.train_dpo(source, tmp_path / "o", TrainingConfig(steps=1, **QUIET))


def test_kto_trains_on_labels(world, call, tmp_path):
    code, _, err = call("train", "dpo", "--loss", "kto", "--model", world / "start",
                        "--out", tmp_path, "--data", world / "labelled.jsonl", "--held-out",
                        world / "labelled.jsonl", "--epochs", 8, *FAST)  # fmt: skip
    assert code == 0, err
    last = read_metrics(tmp_path / "metrics.csv")[-1]
    assert last["held_out_loss"] < 0.5 and last["kl"] >= 0


def test_kto_puts_a_long_response_to_a_long_prompt(world, tmp_path):
    """Each fits with its own partner, not with the other's; a larger limit than the context too."""
    records = [Unpaired("Hi. " * 9, "Yes.", True), Unpaired("Hi.", "No. " * 11, False)]
    write_unpaired(tmp_path / "two.jsonl", records)
    source = pipeline.Source(world / "start", tmp_path / "two.jsonl", max_length=1000)
    settings = TrainingConfig(steps=1, batch_size=2, **QUIET)
    done = pipeline.train_dpo(source, tmp_path / "o", settings, dpo.PreferenceConfig("kto"))
    assert "0 prompts leave no room, 0 lose" in done.reports[1]


@pytest.mark.filterwarnings("default::irlbook.errors.FlatLossWarning")
def test_a_warning_of_the_book_is_one_message(world, call, tmp_path):
    command = ("train", "dpo", "--model", world / "start", "--data", world / "pairs.jsonl")
    code, _, err = call(*command, "--out", tmp_path, "--steps", 30, "--learning-rate", 1e-12)
    assert code == 0 and ".py" not in err
    assert err.startswith("warning: the loss has stayed at 0.6931")


def test_an_interrupt_says_how_to_go_on(world, call, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "train_sft", interrupted)
    code, _, err = call("train", "sft", "--model", "m", "--data", "d", "--out", tmp_path)
    assert code == 130 and "same command again" in err


class Words:
    """One id a word; a text with a ! cannot be written in it."""

    eos_token_id, bos_token_id, chat_template = 0, None, None

    def __call__(self, text, **_):
        if "!" in text:
            raise ValueError("no\n  shouting")
        return SimpleNamespace(input_ids=[len(word) for word in text.split()])


def test_prompts_that_leave_just_enough_room_are_answered():
    prompts = ["a b c", "a b c d", "a", "hey!"]
    kept, ids, lines = encoding.encode_prompts(prompts, Words(), 2, 5, strict=False)
    assert (kept, ids) == ([0, 2], [[1, 1, 1], [1]])
    assert lines[0] == "1 left out, not to be encoded: prompt 3: no shouting"
    assert (
        "1 of 4 prompts leave no room for 2 new tokens in a context of 5: prompt 1 (4" in lines[1]
    )
    with pytest.raises(ContextLengthError, match="Lower max_new_tokens"):
        encoding.encode_prompts(prompts[:2], Words(), 2, 5)
    with pytest.raises(MalformedRowsError, match="prompt 1: no shouting Mend the row"):
        encoding.encode_prompts(["a", "hey!"], Words(), 2, 5)
    assert encoding.encode_prompts(["a b c"], Words(), 2, 5) == ([0], [[1, 1, 1]], [])
    with pytest.raises(EmptyDataError, match="no prompt to answer"):
        encoding.encode_prompts(["a b c d"], Words(), 2, 5, strict=False)


def test_ten_places_are_named_and_all_are_counted():
    (ten,), (more,) = (encoding.refusals([f"row {i}" for i in range(n)]) for n in (10, 11))
    assert ten.startswith("10 left out") and ten.endswith("row 8, row 9")
    assert more.startswith("11 left out") and more.endswith("row 8, row 9 ...")
    assert encoding.refusals([]) == []


def test_the_limit_is_what_is_asked_for_and_what_the_model_reads():
    model, silent = (
        SimpleNamespace(config=SimpleNamespace(**options))
        for options in ({"max_position_embeddings": 64}, {})
    )
    assert [encoding.length_limit(n, model) for n in (None, 63, 64, 65)] == [64, 63, 64, 64]
    assert encoding.context_length(silent) == 2**20 and encoding.length_limit(7, silent) == 7


def test_a_text_comes_back_if_its_own_end_and_its_own_tokens_do():
    for ids, ended, same in (
        ([1, 2, 0], True, True),
        ([1, 2, 5], True, False),
        ([1, 2], False, True),
    ):
        assert encoding.comes_back(Words(), "a bb", ids, ended) is same
    assert not encoding.comes_back(Words(), "a bb", [1, 3, 0], True)


def test_the_kl_of_a_run_is_that_of_samples_of_the_policy_at_the_time(world):
    model, tokenizer = models.load_lm(world / "start")
    prompts = [tuple(encode_prompt(tokenizer, prompt(i))) for i in range(3)]
    room = 64 - max(map(len, prompts))
    measure = pipeline.kl_to_reference(model, prompts, tokenizer, 1000)  # cut where it ends
    few = pipeline.kl_to_reference(model, prompts, tokenizer, 2, seed=5)
    assert abs(measure()["kl"]) < 1e-5
    before = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    for found, options in ((measure, (room, 0)), (few, (2, 5))):
        drawn = sample(
            model,
            prompts,
            max_new_tokens=options[0],
            stop_ids=stop_ids(tokenizer, model),
            seeds=options[1],
        )
        with torch.no_grad():
            gap = token_logps(model, collate(drawn.groups)) - token_logps(
                before, collate(drawn.groups)
            )
        assert found()["kl"] == pytest.approx(float(gap.sum()) / 3, abs=1e-4)
        assert abs(found()["kl"]) > 1e-3


def test_long_records_are_left_out_whole_and_counted(world):
    _, tokenizer = models.load_lm(world / "start")
    short, long = Demonstration("Hi.", "Good."), Demonstration("Hi.", "Good. " * 40)
    coded = pipeline.encode([long, short, long], tokenizer, 40)
    assert coded.kept == [1] and len(coded.report.truncated) == 2
    assert coded.groups[0][1][0][-1] == end_id(tokenizer)
    with pytest.raises(EmptyDataError, match="No record fits"):
        pipeline.encode([long], tokenizer, 40)


def test_margins_must_be_there(world, tmp_path):
    path = tmp_path / "pairs.jsonl"
    write_preferences(path, [Preference("a", "b", "c", 1.0), Preference("d", "e", "f")])
    source = pipeline.Source(world / "start", path)
    margins = reward_model.RewardConfig(use_margin=True)
    with pytest.raises(InvalidDataError, match=r"pairs.jsonl:2 has no margin"):
        pipeline.train_reward(source, tmp_path / "out", TrainingConfig(**QUIET), margins)
    with pytest.raises(InvalidHyperparameterError, match="cannot sample"):
        pipeline.train_dpo(source, tmp_path / "out", TrainingConfig(shard=True), kl_prompts=1)
    with pytest.raises(InvalidHyperparameterError, match="kind"):
        files.score_file(world / "start", path, kind="labels")


def test_a_row_that_the_template_refuses_is_named_or_left_out(world, call, tmp_path):
    """Faults that are found after reading keep their file and line, and obey --skip-malformed."""
    tool = {"role": "tool", "content": "4"}
    talk = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "It was good."}]
    rows = [{"messages": talk}, {"messages": [tool, *talk]}, {"messages": talk}]
    rows[2] |= {"ended": False, "messages": [talk[0], {"role": "assistant", "content": ""}]}
    path = tmp_path / "talk.jsonl"
    path.write_text("\n" + "\n".join(map(json.dumps, [*rows, rows[0]])))
    command = ("train", "sft", "--model", world / "start", "--data", path, "--steps", 1,
               "--batch-size", 2, "--out", tmp_path / "o")  # fmt: skip
    code, _, err = call(*command)
    assert code == 1 and err.startswith(f"error: {path}:3: the chat template refused")
    assert "--skip-malformed" in err and len(err.splitlines()) == 1
    code, out, err = call(*command, "--skip-malformed")
    assert code == 0, err
    assert "2 left out, not to be encoded" in out
    assert f"{path}:3: the chat template" in out and f"{path}:4: the response was cut off" in out
    code, _, err = call("score", "--model", world / "start", "--data", path, "--kind",
                        "demonstrations")  # fmt: skip
    assert code == 1 and f"{path}:3: " in err
    asked = tmp_path / "asked.jsonl"
    asked.write_text("\n".join(json.dumps({"prompt": one}) for one in ("Hi.", [tool], "a " * 60)))
    drawn = ("sample", world / "start", "--prompts", asked, "--max-new-tokens", 4)
    code, _, err = call(*drawn)
    assert code == 1 and f"{asked}:2: the chat template" in err
    code, out, err = call(*drawn, "--skip-malformed")
    assert code == 0 and json.loads(out)["prompt"] == "Hi."
    assert f"{asked}:2: the chat template" in err and f"{asked}:3 (" in err


def test_records_are_tokenised_once(world, monkeypatch):
    _, tokenizer = models.load_lm(world / "start")
    calls = []
    for name in ("encode_prompt", "encode_response"):
        real = getattr(encoding, name)
        monkeypatch.setattr(
            encoding, name, lambda *a, real=real, **k: calls.append(a[1]) or real(*a, **k)
        )
    pipeline.encode([Preference("p", "c", "r"), Demonstration("q", "s")], tokenizer, 64)
    assert sorted(calls) == ["c", "p", "q", "r", "s"]


def test_kl_prompts_are_different_ones(world, tmp_path, monkeypatch):
    pairs = [Preference(prompt(i // 3), f"a{i}", "b") for i in range(12)]
    write_preferences(tmp_path / "p.jsonl", pairs)
    seen = []
    monkeypatch.setattr(pipeline, "kl_to_reference", lambda m, prompts, *a: seen.extend(prompts))
    source = pipeline.Source(world / "start", tmp_path / "p.jsonl")
    settings = TrainingConfig(steps=1, **QUIET)
    pipeline.train_dpo(source, tmp_path / "o", settings, kl_prompts=3)
    assert len(set(seen)) == len(seen) == 3


def test_a_constant_member_of_an_ensemble_is_named(world, tmp_path):
    model, tokenizer = models.load_reward_model(world / "start", new_head=True)
    models.save(model, tokenizer, tmp_path / "good")
    with torch.no_grad():
        model.score.weight.zero_()
    models.save(model, tokenizer, tmp_path / "flat")
    with pytest.raises(RewardError, match="flat: every response gets the same reward"):
        files.score_file([tmp_path / "good", tmp_path / "flat"], world / "pairs.jsonl")


def test_lora_trains_the_adapter_alone_and_its_checkpoint_is_small(world, tmp_path):
    pytest.importorskip("peft")
    source = pipeline.Source(world / "start", world / "pairs.jsonl", lora=2)
    settings = TrainingConfig(steps=4, batch_size=12, learning_rate=1e-2, bucket=1, **QUIET)
    done = pipeline.train_dpo(source, tmp_path, settings)
    rows = done.result.history
    assert rows[0]["loss"] == pytest.approx(np.log(2), abs=1e-6) and rows[-1]["loss"] < 0.69
    model, _ = models.load_lm(world / "start")
    full = models.count_parameters(model)
    state = (tmp_path / "checkpoints/step-00000004/weights.safetensors").stat().st_size
    assert state < 4 * full / 2
    assert (done.model / "adapter_config.json").is_file()
    adapted, _ = models.load_lm(done.model)
    again = files.score_file(done.model, world / "pairs.jsonl", reference=world / "start")[0]
    assert {row["response"] for row in again} == {"chosen", "rejected"}
    assert isinstance(ResponseScorer(adapted), torch.nn.Module)
    margin = np.mean([r["score"] * (1 if r["response"] == "chosen" else -1) for r in again])
    assert margin > 0


@pytest.mark.parametrize("pooling", ["last", "sum"])
def test_a_lora_reward_model_is_saved_whole_and_scores_as_trained(world, call, tmp_path, pooling):
    """Its adapter alone would be taken for a language model's, and forget its pooling."""
    pytest.importorskip("peft")
    source = pipeline.Source(world / "start", world / "pairs.jsonl", lora=2)
    settings = TrainingConfig(steps=8, batch_size=12, learning_rate=1e-2, bucket=1, **QUIET)
    done = pipeline.train_reward(source, tmp_path, settings, pooling=pooling)
    rows = done.result.history
    assert rows[-1]["loss"] < rows[0]["loss"]
    again = pipeline.train_reward(source, tmp_path, settings, pooling=pooling)  # nothing to do
    found, lines = files.score_file(again.model, world / "pairs.jsonl")
    assert "100.0% of 12 pairs" in lines[-1]
    loaded, _ = models.load_reward_model(done.model)
    assert loaded.config.reward_pooling == pooling
    margin = np.mean([r["score"] * (1 if r["response"] == "chosen" else -1) for r in found]) * 2
    assert rows[-1]["margin"] < margin < 1.5 * rows[-1]["margin"]  # one step later


def test_the_family_is_reached_from_python(world, tmp_path):
    source = pipeline.Source(world / "start", world / "pairs.jsonl")
    settings = TrainingConfig(steps=1, batch_size=12, **QUIET)
    for loss, own in (("ipo", {"beta": 1.0}), ("simpo", {"beta": 1.0}), ("slic", {})):
        config = dpo.PreferenceConfig(loss, **own)
        done = pipeline.train_dpo(source, tmp_path / loss, settings, config)
        assert done.result.steps == 1 and (done.model / "model.safetensors").is_file()


def test_several_reward_models_are_an_ensemble(world, call, tmp_path):
    pairs, rewards = world / "pairs.jsonl", []
    for seed in (0, 1):
        settings = TrainingConfig(steps=3, batch_size=12, learning_rate=1e-2, seed=seed, **QUIET)
        source = pipeline.Source(world / "start", pairs)
        pipeline.train_reward(source, tmp_path / f"rm{seed}", settings)
        rows, _ = files.score_file(tmp_path / f"rm{seed}", pairs)
        rewards.append(np.array([row["score"] for row in rows]))
    standard = np.stack([(r - r.mean()) / r.std() for r in rewards])
    for how, expected in (("mean", standard.mean(0)), ("worst", standard.min(0))):
        both = [x for i in (0, 1) for x in ("--model", tmp_path / f"rm{i}")]
        code, out, err = call("score", *both, "--data", pairs, "--ensemble", how,
                              "--out", tmp_path / "s.csv")  # fmt: skip
        assert code == 0 and "of 12 pairs" in out, err
        with open(tmp_path / "s.csv") as file:
            found = [float(row["score"]) for row in csv.DictReader(file)]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    code, _, err = call("score", "--model", tmp_path / "rm0", "--data", pairs,
                        "--reference", world / "start")  # fmt: skip
    assert code == 1 and "a reference goes with a language model" in err


@pytest.mark.parametrize(
    "values",
    [
        {"loss": "dpo", "beta": 0.5, "label_smoothing": 0.1},
        {"loss": "ipo", "length_normalised": True},
        {"loss": "slic", "margin": 2.0, "sft_weight": 0.3},
        {"loss": "kto", "desirable_weight": 1.5, "undesirable_weight": 0.5},
    ],
)
def test_every_hyper_parameter_of_the_family_is_an_option(call, tmp_path, monkeypatch, values):
    seen = []
    monkeypatch.setattr(pipeline, "train_dpo", lambda **arguments: seen.append(arguments))
    options = [x for name, v in values.items() for x in (f"--{name.replace('_', '-')}", v)]
    options = [x for x in options if x is not True]
    with pytest.raises(AttributeError):  # the stand-in leaves nothing to report
        call("train", "dpo", "--model", "m", "--data", "d", "--out", tmp_path, *options,
             "--split", "a", "--held-out-split", "b", "--lora", 3)  # fmt: skip
    source, config = seen[0]["source"], seen[0]["config"]
    assert seen[0]["loss"] == dpo.PreferenceConfig(**values)
    assert (source.split, source.held_out_split, source.lora) == ("a", "b", 3)
    assert config.learning_rate == 1e-5 and config.batch_size == 32


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"--model": "./nowhere"}, "no folder"),
        ({"--model": "encoder"}, "BertForMaskedLM, not a causal language model"),
        ({"--model": "misfit"}, "290 tokens and the model 270 embeddings"),
        ({"--model": "plain", "--data": "talk.jsonl"}, "no chat template"),
        ({"--data": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"--data": "broken.jsonl"}, "broken.jsonl:2"),
        ({"--loss": "ppo"}, "'ppo' is not one of 'dpo'"),
        ({"--beta": "0"}, "beta"),
        ({"--max-length": "5"}, "No record fits"),
        ({"--batch-size": "0"}, "batch_size"),
        ({"--device": "tpu"}, "'tpu' is not one of 'cpu', 'cuda'"),
        ({"--device": "cuda"}, "PyTorch sees none"),
        ({"--precision": "int4"}, "is not one of 'float32', 'bfloat16'"),
        ({"--out": "broken.jsonl"}, "could not be written"),
        ({"--out": "used"}, "not just a saved model"),
    ],
)
def test_bad_input_is_one_message(world, call, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    lines = (world / "pairs.jsonl").read_text().splitlines()
    (tmp_path / "broken.jsonl").write_text("\n".join([lines[0], '{"prompt": 3}', lines[2]]))
    (tmp_path / "used" / "model").mkdir(parents=True)
    (tmp_path / "used" / "model" / "thesis.txt").write_text("three years")
    given = {"--model": "start", "--data": "pairs.jsonl", "--out": "o", "--steps": "1"}
    given |= arguments
    if not given["--model"].startswith("."):
        given["--model"] = str(world / given["--model"])
    if (world / given["--data"]).exists():
        given["--data"] = str(world / given["--data"])
    code, out, err = call("train", "dpo", *[x for pair in given.items() for x in pair])
    assert code in (1, 2) and err.startswith("error: ") and message in err
    assert not (tmp_path / "o" / "model").exists()


def test_every_command_refuses_an_encoder_and_a_missing_gpu(world, call, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pairs, shown = world / "pairs.jsonl", world / "shown.jsonl"
    for command in (("train", "sft", "--data", shown), ("train", "reward", "--data", pairs),
                    ("train", "dpo", "--data", pairs), ("score", "--data", pairs)):  # fmt: skip
        more = ("--out", tmp_path / "o") if command[0] == "train" else ()
        code, _, err = call(*command, *more, "--model", world / "encoder")
        assert code == 1 and "causal language model" in err and "BertForMaskedLM" in err
        code, _, err = call(*command, *more, "--model", world / "start", "--device", "cuda")
        assert code == 1 and "PyTorch sees none" in err
    assert not (tmp_path / "o").exists()


def test_a_tokenizer_without_pad_changes_no_number(world, tmp_path):
    settings = TrainingConfig(steps=2, batch_size=4, **QUIET)
    for train, data in ((pipeline.train_dpo, "pairs"), (pipeline.train_sft, "shown")):
        rows = []
        for name in ("start", "padless"):
            source = pipeline.Source(world / name, world / f"{data}.jsonl")
            rows.append(train(source, tmp_path / f"{data}-{name}", settings).result.history)
        assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
    source = pipeline.Source(world / "padless", world / "pairs.jsonl")
    done = pipeline.train_reward(source, tmp_path / "reward", settings)
    assert models.load_reward_model(done.model)[1].pad_token_id is not None


def test_without_a_chat_template_texts_are_taken_as_they_stand(world, call, tmp_path):
    code, _, err = call("train", "sft", "--model", world / "plain", "--data",
                        world / "shown.jsonl", "--out", tmp_path, "--steps", 1)  # fmt: skip
    assert code == 0, err


def test_long_prompts_are_counted_and_empty_responses_are_trained_on(world, call, tmp_path):
    shown = [Demonstration(prompt(i) * (9 if i == 3 else 1), "Yes." if i else "") for i in range(6)]
    write_demonstrations(tmp_path / "odd.jsonl", shown)
    code, out, err = call("train", "sft", "--model", world / "start", "--data",
                          tmp_path / "odd.jsonl", "--out", tmp_path / "o", "--steps", 1,
                          "--batch-size", 5)  # fmt: skip
    assert code == 0, err
    assert "odd.jsonl:1: a response is empty" in out
    assert (
        "1 prompts leave no room" in out and f"1 records left out: {tmp_path}/odd.jsonl:4\n" in out
    )


def test_nan_names_the_record_and_keeps_the_last_checkpoint(world, call, tmp_path):
    """The response that the model cannot score is the record that is named."""
    model, tokenizer = models.load_lm(world / "start")
    ids = tokenizer.convert_tokens_to_ids(["Z"])
    wide = models.tiny_lm(tokenizer, hidden=16, heads=2, context=64, tied=False)
    with torch.no_grad():
        wide.get_input_embeddings().weight[ids] = float("nan")
    models.save(wide, tokenizer, tmp_path / "nan")
    shown = [Demonstration(prompt(i), "Za." if i == 7 else "Good.") for i in range(12)]
    write_demonstrations(tmp_path / "shown.jsonl", shown)
    code, _, err = call("train", "sft", "--model", tmp_path / "nan", "--data",
                        tmp_path / "shown.jsonl", "--out", tmp_path / "o", "--batch-size", 1,
                        "--checkpoint-every", 1, "--seed", 1)  # fmt: skip
    assert code == 1 and "loss nan" in err and "number 7" in err
    assert f"read from {tmp_path / 'shown.jsonl'}:8" in err
    kept = sorted((tmp_path / "o" / "checkpoints").iterdir())
    assert str(kept[-1]) in err and "step-" in kept[-1].name
    weights = load_file(kept[-1] / "weights.safetensors")
    assert any(value.isfinite().all() for value in weights.values())
    assert not (tmp_path / "o" / "model").exists()


@pytest.mark.parametrize(
    ("module", "name", "works"),
    [  # the second checkpoint; a row after the first one; the model, after all four renames
        (checkpoints, "save_file", 2),
        (checkpoints.Metrics, "_text", 7),
        (models.os, "rename", 4),
    ],
)
def test_a_full_disk_loses_nothing(world, call, tmp_path, monkeypatch, module, name, works):
    command = ("train", "sft", "--model", world / "start", "--data", world / "shown.jsonl",
               "--epochs", 4, "--checkpoint-every", 3, *FAST, "--out")  # fmt: skip
    assert call(*command, tmp_path / "whole")[0] == 0
    real, calls = getattr(module, name), []

    def full(*arguments, **options):
        calls.append(arguments)
        if len(calls) > works:
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, full)
    code, _, err = call(*command, tmp_path / "o")
    assert code == 1 and "No space left on device" in err and "ake room" in err
    assert list((tmp_path / "o" / "checkpoints").glob("step-*"))
    assert not (tmp_path / "o" / "model").exists()
    monkeypatch.undo()
    assert run_again(call, command, tmp_path) == without_clock(tmp_path / "whole")


def run_again(call, command, folder) -> list:
    from_here = (*map(str, command), str(folder / "o"))
    code, _, err = call(*from_here)
    assert code == 0, err
    assert models.load_lm(folder / "o" / "model")
    return without_clock(folder / "o")


def without_clock(folder) -> list:
    rows = read_metrics(folder / "metrics.csv")
    return [{k: v for k, v in row.items() if k != "tokens_per_second"} for row in rows]


def test_a_killed_command_goes_on_to_the_same_numbers(world, call, tmp_path):
    command = ("train", "sft", "--model", world / "start", "--data", world / "shown.jsonl",
               "--epochs", 40, "--checkpoint-every", 2, *FAST, "--out")  # fmt: skip
    program = [sys.executable, "-c", "from irlbook.cli import main; main()"]
    with open(tmp_path / "err", "w") as errors:
        running = subprocess.Popen(
            [*program, *map(str, command), str(tmp_path / "o")], stderr=errors, env=os.environ
        )
        deadline = time.monotonic() + 300
        while not any((tmp_path / "o" / "checkpoints").glob("step-*")):
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        running.kill()
    assert running.wait() == -9
    assert (tmp_path / "err").read_text() == ""  # no table of weights, no bar without a terminal
    assert call(*command, tmp_path / "whole")[0] == 0
    assert run_again(call, command, tmp_path) == without_clock(tmp_path / "whole")
