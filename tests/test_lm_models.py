"""Models: built from a seed, saved whole or not at all, loaded without pickles or foreign code."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
)

from irlbook.errors import (
    FolderInUseError,
    MissingDependencyError,
    ModelNotFoundError,
    TokenizerError,
    UnsafeWeightsError,
    UnsupportedModelError,
    UnusedWeightsWarning,
)
from irlbook.lm import models
from irlbook.lm.logprobs import token_logps
from irlbook.lm.models import (
    add_lora,
    check_fit,
    count_parameters,
    load_lm,
    load_reward_model,
    save,
    tiny_lm,
)
from irlbook.lm.tokenization import SPECIAL, encode_prompt, encode_response, train_tokenizer
from irlbook.lm.trees import collate

TREE = collate([([1, 2, 3], [[4, 5, 2], [6, 2]])])


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["The bus was late."], 270)


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_lm(tokenizer, hidden=16).eval()


@pytest.fixture(scope="module")
def saved(model, tokenizer, tmp_path_factory):
    """Not to be changed by a test."""
    return save(model, tokenizer, tmp_path_factory.mktemp("models") / "lm")


def logps(model):
    with torch.no_grad():
        return token_logps(model, TREE)


def test_the_books_model_has_253_k_parameters():
    assert 250_000 < count_parameters(tiny_lm(330)) < 256_000


def test_the_head_shares_the_embedding_if_tied():
    tied, free = (tiny_lm(50, hidden=16, tied=tied) for tied in (True, False))
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight
    assert count_parameters(free) == count_parameters(tied) + 50 * 16


def test_a_seed_gives_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, same, other = (tiny_lm(50, hidden=16, seed=seed) for seed in (5, 5, 6))
    assert torch.rand(1).equal(expected)
    assert logps(one).equal(logps(same)) and not logps(one).equal(logps(other))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "mamba"}, "choose from"),
        ({"hidden": 20, "heads": 4}, "multiple of twice heads"),
        ({"hidden": 16, "heads": 4, "kv_heads": 3}, "multiple of kv_heads"),
    ],
)
def test_impossible_models_are_refused(options, words):
    with pytest.raises(UnsupportedModelError, match=words):
        tiny_lm(50, **options)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_round_trip_scores_the_same_here_and_in_transformers(kind, tokenizer, tmp_path):
    model = tiny_lm(tokenizer, kind, hidden=16, kv_heads=2).eval()
    folder = save(model, tokenizer, tmp_path / "deep" / "lm")
    ours, its_tokenizer = load_lm(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    assert logps(ours).equal(logps(model)) and logps(theirs).equal(logps(model))
    # AutoTokenizer would make it Qwen's own next to a Qwen2 model
    assert its_tokenizer.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert encode_response(its_tokenizer, "late 12") == encode_response(tokenizer, "late 12")
    names = [file.name for file in folder.iterdir()]
    assert any(name.endswith(".safetensors") for name in names)
    assert not any(name.endswith(models.PICKLES) for name in names)
    assert not any(file.name.startswith(".") for file in folder.parent.iterdir())


@pytest.mark.parametrize("tied", [True, False])
def test_loading_and_saving_print_nothing(tied, tokenizer, tmp_path, capfd):
    """A reward model's new head is meant to be missing, and the old head to be left."""
    save(tiny_lm(tokenizer, hidden=16, tied=tied), tokenizer, tmp_path / "start")
    save(load_lm(tmp_path / "start")[0], tokenizer, tmp_path / "lm")
    reward, _ = load_reward_model(tmp_path / "lm", new_head=True)
    load_reward_model(save(reward, tokenizer, tmp_path / "rm"))
    assert capfd.readouterr() == ("", "")


def changed_weights(saved, folder, change):
    """A copy of a saved model with its weights changed in place by `change`."""
    shutil.copytree(saved, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_weights_that_do_not_fill_the_model_are_named(saved, tmp_path):
    """transformers would go on with random numbers and print a table."""
    norm = "model.layers.1.input_layernorm.weight"
    missing = changed_weights(saved, tmp_path / "a", lambda w: w.pop(norm))
    narrow = changed_weights(saved, tmp_path / "b", lambda w: w.update({norm: torch.ones(8)}))
    for folder, words in ((missing, "missing"), (narrow, "8.*16")):
        for load in (load_lm, lambda folder: load_reward_model(folder, new_head=True)):
            with pytest.raises(UnsupportedModelError, match=rf"layers\.1\.input.*{words}"):
                load(folder)
    more = changed_weights(saved, tmp_path / "c", lambda w: w.update(extra=torch.ones(2)))
    with pytest.warns(UnusedWeightsWarning, match="no place for.*extra"):
        load_lm(more)


def test_a_head_of_another_size_is_replaced_only_when_asked(saved, tmp_path):
    reward, tokenizer = load_reward_model(saved, new_head=True)
    folder = save(reward, tokenizer, tmp_path / "rm")
    wide = changed_weights(
        folder, tmp_path / "wide", lambda w: w.update({"score.weight": torch.ones(3, 16)})
    )
    assert load_reward_model(wide, new_head=True)[0].score.weight.shape == (1, 16)
    with pytest.raises(UnsupportedModelError, match=r"score\.weight"):
        load_reward_model(wide)
    headless = changed_weights(folder, tmp_path / "less", lambda w: w.pop("score.weight"))
    with pytest.raises(UnsupportedModelError, match=r"score\.weight \(missing"):
        load_reward_model(headless)


def test_dtype_is_the_one_asked_for(saved):
    assert load_lm(str(saved), dtype=torch.float64)[0].dtype == torch.float64
    assert load_lm(saved)[0].dtype == torch.float32


def test_reward_model_round_trip_scores_the_same_as_transformers(saved, tmp_path):
    reward, tokenizer = load_reward_model(saved, new_head=True, seed=1)
    again, _ = load_reward_model(saved, new_head=True, seed=1)
    assert reward.score.weight.equal(again.score.weight)
    folder = save(reward, tokenizer, tmp_path / "rm")
    ours, _ = load_reward_model(folder)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder)
    rows = [encode_prompt(tokenizer, "bus") + encode_response(tokenizer, text)
            for text in ("late", "The bus was late.")]  # fmt: skip
    batch = AutoTokenizer.from_pretrained(folder).pad({"input_ids": rows}, return_tensors="pt")
    with torch.no_grad():
        expected = reward(**batch).logits
        alone = [reward(torch.tensor([row])).logits[0] for row in rows]
        assert expected.shape == (2, 1)
        assert ours(**batch).logits.equal(expected) and theirs(**batch).logits.equal(expected)
    assert (expected - torch.stack(alone)).abs().max() <= 1e-5  # pads change no score


def test_a_reward_model_from_a_tokenizer_without_pad_can_score_batches(model, tmp_path):
    """Trap 12: a model without pad_token_id refuses batches."""
    tokenizer = train_tokenizer(["The bus was late."], 270)
    bare = tiny_lm(len(tokenizer), hidden=16)
    assert bare.config.pad_token_id is None
    reward, _ = load_reward_model(save(bare, tokenizer, tmp_path / "lm"), new_head=True)
    assert reward(torch.ones(2, 3, dtype=torch.long)).logits.shape == (2, 1)


@pytest.mark.parametrize("pad", ["<|eos|>", None])
def test_a_reward_model_reads_the_end_even_where_pad_was_end(pad, tmp_path):
    """Trap 12: with pad == eos the transformers head reads the token before the end."""
    tokenizer = train_tokenizer(["The bus was late."], 270)
    tokenizer.pad_token = pad
    base = tiny_lm(tokenizer, hidden=16)
    reward, its = load_reward_model(save(base, tokenizer, tmp_path / "lm"), new_head=True)
    assert its.pad_token_id == reward.config.pad_token_id != its.eos_token_id
    rows = [encode_prompt(its, "bus") + encode_response(its, text) for text in ("late", "a")]
    batch = its.pad({"input_ids": rows}, return_tensors="pt")
    with torch.no_grad():
        states = [reward.model(torch.tensor([row])).last_hidden_state[0, -1] for row in rows]
        expected = torch.stack([reward.score(state) for state in states])
        assert (reward(**batch).logits - expected).abs().max() <= 1e-5


ENDS = ["<|endoftext|>", "<|im_end|>", "</s>"]


@pytest.mark.parametrize(
    ("special", "names", "template", "expected"),
    [  # as in Qwen2.5's base models, SmolLM2 (both), Llama 2 and Llama 3
        (ENDS[:1] + ["<|im_start|>", "<|im_end|>", "<|box_end|>"], {}, True, "<|box_end|>"),
        (ENDS[:1] + ["<repo>", "<|im_start|>"], {"bos": 0, "unk": 0}, False, "<repo>"),
        (["<|im_end|>", "<|im_start|>", "<|endoftext|>"], {"bos": 1, "unk": 2}, True, ENDS[0]),
        (["</s>", "<s>", "<unk>"], {"bos": 1, "unk": 2}, False, "<unk>"),
        (["<|end_of_text|>", "<|bos|>", "<|finetune_pad|>"], {"bos": 1}, False, "<|finetune_pad|>"),
    ],
)
@pytest.mark.parametrize("pad", [True, False])
def test_another_special_token_becomes_pad(special, names, template, expected, pad, tmp_path):
    """Base models have pad == eos, or none; a head would read the token before the end."""
    tokenizer = train_tokenizer(["The bus was late."], 270)
    backend = tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())
    state["added_tokens"], state["post_processor"] = [], None
    vocabulary = state["model"]["vocab"]
    for old, new in zip(SPECIAL, [*special, *"①②③④"], strict=False):
        vocabulary[new] = vocabulary.pop(old)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        eos_token=special[0],
        pad_token=special[0] if pad else None,
        additional_special_tokens=special[1:],
        **{f"{name}_token": special[k] for name, k in names.items()},
    )
    if template:
        tokenizer.chat_template = (
            "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
            "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        )
    folder = save(tiny_lm(tokenizer, hidden=16), tokenizer, tmp_path / "lm")
    reward, its = load_reward_model(folder, new_head=True)
    assert its.pad_token == expected
    assert reward.config.pad_token_id == its.pad_token_id
    rows = [encode_prompt(its, "bus") + encode_response(its, text) for text in ("late", "a bus")]
    batch = its.pad({"input_ids": rows}, return_tensors="pt", padding_side="right")
    with torch.no_grad():
        states = [reward.model(torch.tensor([row])).last_hidden_state[0, -1] for row in rows]
        expected_scores = torch.stack([reward.score(state) for state in states])
        assert (reward(**batch).logits - expected_scores).abs().max() <= 1e-5


@pytest.mark.parametrize("spare", [0, 40])
def test_a_tokenizer_with_nothing_free_to_be_pad_gets_a_new_token(spare, tmp_path):
    """GPT-2's only special token is its end; Pythia's model has rows to spare for a second one."""
    tokenizer = train_tokenizer(["The bus was late."], 270)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"], state["post_processor"] = [], None
    vocabulary = state["model"]["vocab"]
    vocabulary["once a pad"] = vocabulary.pop("<|pad|>")
    plain = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)), eos_token="<|eos|>"
    )
    plain.pad_token = "<|eos|>"
    lm = tiny_lm(plain, hidden=16)
    lm.resize_token_embeddings(len(plain) + spare)
    reward, its = load_reward_model(save(lm, plain, tmp_path / "lm"), new_head=True)
    assert its.pad_token == "<|pad|>" and its.pad_token_id == len(plain)
    assert reward.get_input_embeddings().num_embeddings == max(len(plain) + spare, len(its))
    again, its = load_reward_model(save(reward, its, tmp_path / "reward"))
    assert again.config.pad_token_id == its.pad_token_id == len(plain)
    rows = [[5, 6, 7, its.eos_token_id], [8, its.eos_token_id]]
    batch = its.pad({"input_ids": rows}, return_tensors="pt", padding_side="right")
    with torch.no_grad():
        states = [again.base_model(torch.tensor([row]))[0][0, -1] for row in rows]
        expected = torch.stack([again.score(state) for state in states])
        assert (again(**batch).logits - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("mask", "file", "directory"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_what_is_saved_is_as_open_as_the_users_umask_says(mask, file, directory, tmp_path):
    """safetensors makes its files private: another user of a shared computer cannot read them."""
    tokenizer = train_tokenizer(["The bus was late."], 270)
    model = tiny_lm(tokenizer, hidden=16)
    before = os.umask(mask)
    try:
        folder = save(model, tokenizer, tmp_path / "lm")
        adapter = save(add_lora(model, rank=2), tokenizer, tmp_path / "lora")
    finally:
        os.umask(before)
    for one in (folder, adapter):
        assert one.stat().st_mode & 0o777 == directory
        assert {path.stat().st_mode & 0o777 for path in one.iterdir()} == {file}


def test_a_language_model_is_no_reward_model_unless_asked(saved, tmp_path):
    with pytest.raises(UnsupportedModelError, match="new_head=True"):
        load_reward_model(saved)
    folder = shutil.copytree(saved, tmp_path / "three")
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["LlamaForSequenceClassification"],
               "id2label": {"0": "a", "1": "b", "2": "c"}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match="3 outputs"):
        load_reward_model(folder)
    with pytest.raises(UnsupportedModelError, match="not a causal language model"):
        load_lm(folder)


def test_an_encoder_is_no_language_model(tokenizer, tmp_path):
    config = BertConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16)  # fmt: skip
    BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="BertForMaskedLM, not a causal"):
        load_lm(tmp_path)


def test_pickles_are_refused_unopened(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    for load in (load_lm, load_reward_model):
        with pytest.raises(UnsafeWeightsError, match="pytorch_model.bin.*not safetensors"):
            load(folder)


def test_pickles_are_not_opened_beside_other_safetensors(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "mixed")
    (folder / "model.safetensors").rename(folder / "notes.safetensors")
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UnsafeWeightsError, match="not safetensors"):
        load_lm(folder)


def test_a_folder_without_weights_is_named(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "half")
    (folder / "model.safetensors").unlink()
    with pytest.raises((ModelNotFoundError, UnsafeWeightsError), match="half"):
        load_lm(folder)


def test_damaged_weights_and_a_missing_tokenizer_are_named(saved, tmp_path):
    whole = (saved / "model.safetensors").read_bytes()
    for name, kept in (("half", whole[: len(whole) // 2]), ("empty", b"")):
        folder = shutil.copytree(saved, tmp_path / name)
        (folder / "model.safetensors").write_bytes(kept)
        with pytest.raises(ModelNotFoundError, match=f"{name} are cut off or damaged"):
            load_lm(folder)
    folder = shutil.copytree(saved, tmp_path / "mute")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(TokenizerError, match="mute holds no tokenizer"):
        load_lm(folder)


def test_foreign_code_is_never_run(tokenizer, tmp_path):
    mark = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "evil", "architectures": ["EvilForCausalLM"],
        "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"},
    }))  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="never run"):
        load_lm(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("load", [load_lm, load_reward_model])
def test_a_missing_model_says_what_to_do(load, tmp_path):
    with pytest.raises(ModelNotFoundError, match="no folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(ModelNotFoundError, match="no folder"):
        load("./nowhere")
    with pytest.raises(ModelNotFoundError, match="without a network, give a folder"):
        load("nobody/nothing-of-this-name", offline=True)


def test_a_damaged_config_is_named(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "damaged")
    (folder / "config.json").write_text("{")
    with pytest.raises((ModelNotFoundError, UnsupportedModelError), match="damaged"):
        load_lm(folder)


def test_model_and_tokenizer_must_fit(model, saved, tmp_path):
    large = train_tokenizer(["The bus was late. " * 3, "and early and on time"], 290)
    with pytest.raises(TokenizerError, match="do not belong together"):
        check_fit(model, large)
    large.save_pretrained(folder := shutil.copytree(saved, tmp_path / "mixed"))
    with pytest.raises(TokenizerError, match="resize_token_embeddings"):
        load_lm(folder)


def test_a_failed_save_leaves_the_old_model(saved, model, tokenizer, tmp_path, monkeypatch):
    folder = shutil.copytree(saved, tmp_path / "lm")
    other = tiny_lm(tokenizer, hidden=16, seed=9).eval()

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokenizer, "save_pretrained", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(other, tokenizer, folder)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["lm"]
    assert logps(load_lm(folder)[0]).equal(logps(model))
    save(other, tokenizer, folder)
    assert logps(load_lm(folder)[0]).equal(logps(other))
    assert [file.name for file in tmp_path.iterdir()] == ["lm"]


def test_a_save_that_fails_at_the_last_step_loses_nothing(
    saved, model, tokenizer, tmp_path, monkeypatch
):
    folder = shutil.copytree(saved, tmp_path / "lm")
    rename, other = models.os.rename, tiny_lm(tokenizer, hidden=16, seed=9)

    def fails_into_place(source, target):
        if target == folder:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(models.os, "rename", fails_into_place)
    with pytest.raises(OSError, match="Input/output"):
        save(other, tokenizer, folder)
    monkeypatch.undo()
    assert logps(load_lm(folder)[0]).equal(logps(model))
    assert [file.name for file in tmp_path.iterdir()] == ["lm"]


def test_a_kill_between_the_two_renames_loses_nothing(saved, model, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "lm")
    folder.rename(tmp_path / ".lm.old")
    assert logps(load_lm(folder)[0]).equal(logps(model))
    assert folder.is_dir()


def test_what_a_killed_save_left_is_removed_by_the_next(saved, model, tokenizer, tmp_path):
    """A save is killed while it writes; then another process is writing, and one elsewhere."""
    script = """
import os, sys
from irlbook.lm import models
model, tokenizer = models.load_lm(sys.argv[1])
model.save_pretrained = lambda folder: os._exit(9)
models.save(model, tokenizer, sys.argv[2])
"""
    folder = tmp_path / "lm"
    killed = subprocess.run([sys.executable, "-c", script, saved, folder], check=False)
    assert killed.returncode == 9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".lm.new.")
    alive = tmp_path / f".lm.new.{platform.node()}.{os.getppid()}.abc"
    elsewhere = tmp_path / left.name.replace(platform.node(), "another-machine")
    other = tmp_path / left.name.replace(".lm.", ".lm2.")
    for kept in (alive, elsewhere, other):
        kept.mkdir()
    save(model, tokenizer, folder)
    assert set(tmp_path.iterdir()) == {folder, alive, elsewhere, other}


def test_save_keeps_what_is_not_a_model(saved, model, tokenizer, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(FolderInUseError, match="holds no model.*stays as it is"):
        save(model, tokenizer, tmp_path)
    with pytest.raises(FolderInUseError, match="stays as it is"):
        save(model, tokenizer, tmp_path / "thesis.txt")
    folder = shutil.copytree(saved, tmp_path / "lm")
    (folder / "metrics.csv").write_text("step,loss")
    (folder / "checkpoints").mkdir()
    with pytest.raises(FolderInUseError, match="checkpoints, metrics.csv"):
        save(model, tokenizer, folder)
    (empty := tmp_path / "empty").mkdir()
    assert save(model, tokenizer, empty) == empty


def test_lora_without_peft_says_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match=r"irlbook\[lora\]"):
        add_lora(model)


def test_lora_starts_at_the_base_model_and_trains_the_adapter_alone(saved, model, tmp_path):
    pytest.importorskip("peft")
    base, tokenizer = load_lm(saved)
    adapted = add_lora(base, rank=2)
    assert 0 < count_parameters(adapted, trainable=True) < count_parameters(model) / 2
    assert (logps(adapted) - logps(model)).abs().max() <= 1e-6
    token_logps(adapted, TREE).sum().backward()
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.1
            else:
                assert parameter.grad is None
    folder = save(adapted, tokenizer, tmp_path / "adapter")
    loaded, _ = load_lm(folder)
    assert (logps(loaded) - logps(adapted)).abs().max() <= 1e-6
    assert (logps(loaded) - logps(model)).abs().max() > 1e-3


def test_an_adapter_of_a_reward_model_is_no_language_model(saved, tokenizer, tmp_path):
    """Read as a language model's it would score log-probabilities, silently."""
    pytest.importorskip("peft")
    base, _ = load_reward_model(saved, new_head=True, seed=3)
    adapted = add_lora(base, rank=2, task="SEQ_CLS")
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.1
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        expected = adapted(ids).logits
    folder = save(adapted, tokenizer, tmp_path / "adapter")
    with pytest.raises(UnsupportedModelError, match="SEQ_CLS, not for a causal"):
        load_lm(folder)
    loaded, _ = load_reward_model(folder)
    with torch.no_grad():
        assert (loaded(ids).logits - expected).abs().max() <= 1e-5
    policy = save(add_lora(load_lm(saved)[0], rank=2), tokenizer, tmp_path / "policy")
    with pytest.raises(UnsupportedModelError, match="not of a reward model"):
        load_reward_model(policy)
    with pytest.raises(UnsupportedModelError, match="has an adapter already"):
        add_lora(load_lm(policy)[0])


# Damaged files, found by tests/attack/malformed.py ------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("tokenizer_config.json", "[]", "tokenizer_config.json is damaged .it holds no object"),
        ("tokenizer_config.json", "{", "tokenizer_config.json is damaged"),
        ("tokenizer.json", "7", "cannot be loaded here: AttributeError"),
        ("adapter_config.json", '{"task_type": ', "adapter_config.json is damaged"),
        ("adapter_config.json", '{"task_type": "CAUSAL_LM"}', "does not name the model"),
    ],
)
def test_a_damaged_small_file_is_named(file, content, words, saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "damaged")
    (folder / file).write_text(content)
    if "not name" in words:
        pytest.importorskip("peft")
    with pytest.raises(UnsupportedModelError, match=words) as found:
        load_lm(folder)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_attention_heads": 7}, "not a multiple of the number of attention heads"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"hidden_act": "os.system"}, "KeyError: 'os.system'"),
        ({"num_hidden_layers": 10**6}, "says that it has 1000000 layers"),
    ],
)
def test_settings_that_make_no_model_are_named(change, words, saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "odd")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | change))
    with pytest.raises(UnsupportedModelError, match=words):
        load_lm(folder)


def test_a_damaged_adapter_is_named_and_none_is_completed_by_chance(saved, tokenizer, tmp_path):
    pytest.importorskip("peft")
    folder = save(add_lora(load_lm(saved)[0], rank=2), tokenizer, tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UnsupportedModelError, match="the adapter in .*SafetensorError"):
        load_lm(folder)
    save_file({name: one for name, one in weights.items() if "layers.1" not in name}, file)
    with pytest.raises(UnsupportedModelError, match="missing adapter keys"):
        load_lm(folder)


def test_a_new_head_is_drawn_from_its_seed_and_from_nothing_else(saved):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, other, usual, first = (
        load_reward_model(saved, new_head=True, **options)[0].score.weight
        for options in ({"seed": 5}, {"seed": 6}, {}, {"seed": 0})
    )
    assert torch.rand(1).equal(expected)
    assert not one.equal(other) and usual.equal(first) and not usual.equal(one)


def test_a_loaded_model_lies_where_it_was_asked_for_and_rests(saved):
    for load in (load_lm, lambda *given: load_reward_model(*given, new_head=True)):
        loaded, _ = load(saved, "cpu", torch.bfloat16)
        assert loaded.dtype == torch.bfloat16 and loaded.device.type == "cpu"
        assert not loaded.training and all(p.requires_grad for p in loaded.parameters())


def test_an_adapter_without_settings_is_of_rank_8_on_all_linear_layers():
    pytest.importorskip("peft")
    config = add_lora(tiny_lm(50, hidden=16)).peft_config["default"]
    assert (config.r, config.lora_alpha, config.task_type) == (8, 16, "CAUSAL_LM")
    attention, rest = {f"{x}_proj" for x in "qkvo"}, {"gate_proj", "up_proj", "down_proj"}
    assert {name.rpartition(".")[2] for name in config.target_modules} == attention | rest


@pytest.mark.parametrize("listed", [[2, 4], 4])
def test_what_ends_a_response_in_the_settings_of_sampling_is_never_pad(listed, tmp_path):
    """The lists of end tokens in generation_config.json, which stop samples, too."""
    tokenizer = train_tokenizer(["The bus was late."], 270)
    tokenizer.pad_token, tokenizer.chat_template = tokenizer.eos_token, None
    names = tokenizer.convert_ids_to_tokens(range(5))
    assert list(SPECIAL) == names and tokenizer.eos_token_id == names.index("<|eos|>")
    lm = tiny_lm(tokenizer, hidden=16)
    lm.generation_config.eos_token_id = listed
    folder = save(lm, tokenizer, tmp_path / "lm")
    assert load_reward_model(folder, new_head=True)[1].pad_token == "<|pad|>"  # by its name
    state = json.loads((folder / "tokenizer.json").read_text())
    text = json.dumps(state).replace("<|pad|>", "<|other|>")
    (folder / "tokenizer.json").write_text(text)
    its = load_reward_model(folder, new_head=True)[1]
    ends = {listed} if isinstance(listed, int) else set(listed)
    assert its.pad_token_id not in ends | {its.eos_token_id}


@pytest.mark.parametrize("offline", [True, False])
def test_every_part_of_a_model_is_taken_from_the_revision_asked_for(saved, offline, monkeypatch):
    asked, real = [], models._from_pretrained

    def spy(loader, source, options):
        asked.append((options.get("revision"), options.get("local_files_only")))
        return real(loader, source, options)

    monkeypatch.setattr(models, "_from_pretrained", spy)
    load_lm(saved, revision="abc", offline=offline)
    assert len(asked) == 3  # settings, weights, tokenizer
    load_reward_model(saved, revision="abc", offline=offline, new_head=True)
    assert len(asked) == 7 and set(asked) == {("abc", offline)}  # and how it samples
    asked.clear()
    load_lm(saved)
    assert set(asked) == {(None, False)}
