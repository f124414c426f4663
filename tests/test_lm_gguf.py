"""GGUF files become model folders that compute the same numbers, or are refused by name."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Regex, normalizers, pre_tokenizers
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

pytest.importorskip("gguf", reason="needs the extra gguf")
from gguf_writer import rounded, write_gguf  # noqa: E402

from irlbook.errors import (  # noqa: E402
    CheckpointError,
    FolderInUseError,
    IrlbookError,
    MissingDependencyError,
    ModelFileError,
    ModelNotFoundError,
    ModelTooLargeError,
    TokenizerError,
    UnsupportedModelError,
)
from irlbook.lm import gguf_files, memory  # noqa: E402
from irlbook.lm.gguf_files import import_gguf, read_gguf  # noqa: E402
from irlbook.lm.models import load_lm, tiny_lm  # noqa: E402
from irlbook.lm.tokenization import encode_prompt, stop_ids, train_tokenizer  # noqa: E402

TEXTS = ["The bus was late in 1999.", "It is  12 o'clock, isn't it?", "Grün, né 2024\n\n 7 × ½"]
IDS = torch.tensor([[1, 70, 80, 90, 100, 110, 7, 8]])


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 3, 320)


@pytest.fixture(scope="module")
def model(tokenizer):
    return made(tokenizer, "llama")


def made(tokenizer, kind, **more):
    model = tiny_lm(tokenizer, kind, kv_heads=2, **more).eval()
    with torch.no_grad():
        for value in model.parameters():  # norms and biases that are not 1 and 0
            if value.ndim == 1:
                value.add_(0.3 * torch.randn(value.shape, generator=torch.manual_seed(1)))
    return model


@pytest.fixture(scope="module")
def good(model, tokenizer, tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("good") / "tiny.gguf", model, tokenizer)


@torch.no_grad()
def logits(model):
    return model(IDS).logits


# What comes out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_float_file_gives_the_logits_of_its_model(kind, tied, tokenizer, tmp_path):
    source = made(tokenizer, kind, tied=tied)
    file = write_gguf(tmp_path / "a.gguf", source, tokenizer)
    card = import_gguf(file, tmp_path / "lm")
    loaded, _ = load_lm(tmp_path / "lm")
    assert torch.equal(logits(loaded), logits(source))
    assert loaded.config.tie_word_embeddings is tied and type(loaded) is type(source)
    assert getattr(loaded.config, "quantization_config", None) is None
    assert card["lost"] == [] and set(card["tensors"]) == {"F32"}


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "Q4_0", "F16"])
def test_a_quantised_file_gives_the_logits_of_its_rounded_model(kind, tokenizer, tmp_path):
    source = made(tokenizer, "llama")
    before = logits(source)
    file = write_gguf(tmp_path / "a.gguf", source, tokenizer, kind=kind)
    card = import_gguf(file, tmp_path / "lm")
    rounded(source, kind)
    loaded = logits(load_lm(tmp_path / "lm")[0])
    assert torch.equal(loaded, logits(source)) and not torch.equal(loaded, before)
    assert set(card["tensors"]) == {kind, "F32"}
    assert [line.split(" to ")[1][:4] for line in card["lost"]] == ([kind] if kind != "F16" else [])


def test_another_order_of_coordinates_would_be_seen(model, tokenizer, tmp_path):
    """The oracle can fail: queries that were not turned for llama.cpp give other numbers."""

    def unturned(weights):
        weights["blk.0.attn_q.weight"] = model.state_dict()[
            "model.layers.0.self_attn.q_proj.weight"
        ].numpy()

    import_gguf(write_gguf(tmp_path / "a.gguf", model, tokenizer, change=unturned), tmp_path / "lm")
    assert not torch.allclose(logits(load_lm(tmp_path / "lm")[0]), logits(model), atol=1e-3)


def test_bfloat16_takes_half_and_is_said_to_round(good, model, tmp_path):
    import_gguf(good, tmp_path / "whole")
    card = import_gguf(good, tmp_path / "half", dtype="bfloat16")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.55 * sizes[0] and "1 part in 256" in card["lost"][0]
    for (name, mine), its in zip(
        load_lm(tmp_path / "half")[0].named_parameters(), model.parameters(), strict=True
    ):
        assert ((mine - its).abs() <= its.abs() / 256).all(), name
    with pytest.raises(UnsupportedModelError, match="float32 or bfloat16"):
        import_gguf(good, tmp_path / "x", dtype="float16")


def cut(tokenizer, rule):
    """The tokenizer with the rule of a family, as that family's own tokenizer has it."""
    backend = tokenizer.backend_tokenizer
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rule != "qwen2")
    first = {
        "smollm": pre_tokenizers.Digits(individual_digits=True),
        "qwen2": pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
    }.get(rule)
    backend.pre_tokenizer = pre_tokenizers.Sequence([first, byte_level]) if first else byte_level
    if rule == "qwen2":
        backend.normalizer = normalizers.NFC()


@pytest.mark.parametrize(
    ("rule", "kind"), [("gpt-2", "llama"), ("smollm", "llama"), ("qwen2", "qwen2")]
)
@pytest.mark.parametrize("bos", [True, False])
def test_the_tokenizer_and_its_template_come_along(rule, kind, bos, tmp_path):
    source = train_tokenizer([*TEXTS, *(f"  {i} and  {i}" for i in range(1900, 2030))], 420)
    cut(source, rule)
    if not bos:
        source.backend_tokenizer.post_processor = None
    source.pad_token = source.eos_token  # as in SmolLM2
    file = write_gguf(tmp_path / "a.gguf", made(source, kind), source, rule=rule)
    card = import_gguf(file, tmp_path / "lm")
    loaded, tokenizer = load_lm(tmp_path / "lm")
    assert card["lost"] == [] and tokenizer.get_vocab() == source.get_vocab()
    assert tokenizer.chat_template == source.chat_template
    decomposed = "ne\u0301e"
    for text in (*TEXTS, "", "  2024  and  1", f"x{source.eos_token}y", decomposed):
        assert tokenizer(text).input_ids == source(text).input_ids, text
        assert encode_prompt(tokenizer, text) == encode_prompt(source, text)
    ids = source(TEXTS[2]).input_ids
    assert tokenizer.decode(ids) == source.decode(ids)
    for name in ("bos", "eos", "pad"):
        own = getattr(source, f"{name}_token_id")
        found = (tokenizer, loaded.config, loaded.generation_config)
        assert [getattr(one, f"{name}_token_id") for one in found] == [own] * 3
    assert stop_ids(tokenizer, loaded) == [source.eos_token_id]


def test_the_rules_cut_differently():
    """What the last test compares is not the same under every rule."""
    found = []
    for rule in ("gpt-2", "smollm", "qwen2"):
        tokenizer = train_tokenizer([*TEXTS, *(f"  {i} and  {i}" for i in range(2030))], 420)
        cut(tokenizer, rule)
        found.append(tuple(tokenizer("  2024  and  1 ne\u0301e").input_ids))
    assert len(set(found)) == 3


def test_what_a_tokenizer_loses_is_told(model, tokenizer, tmp_path):
    keys = {"tokenizer.chat_template": None, "tokenizer.chat_template.tool_use": "x"}
    file = write_gguf(tmp_path / "a.gguf", model, tokenizer, rule="martian", keys=keys)
    rule, template, several = import_gguf(file, tmp_path / "lm")["lost"]
    assert "'martian'" in rule and "no chat template" in template and "several" in several
    assert load_lm(tmp_path / "lm")[1].chat_template is None


def test_a_second_end_token_stops_a_response(model, tokenizer, tmp_path):
    file = write_gguf(
        tmp_path / "a.gguf", model, tokenizer, keys={"tokenizer.ggml.eot_token_id": 0}
    )
    import_gguf(file, tmp_path / "lm")
    assert stop_ids(*reversed(load_lm(tmp_path / "lm"))) == [0, tokenizer.eos_token_id]


def test_a_sentencepiece_tokenizer_is_rebuilt(tmp_path):
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    words = ["▁", "a", "b", "▁a", "ab", "▁ab"]
    keys = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": None,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.tokens": pieces + words,
        "tokenizer.ggml.scores": [0.0] * len(pieces) + [-float(i) for i in range(len(words))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(words),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": None,
        "tokenizer.ggml.add_bos_token": None,  # a beginning stands before SentencePiece's texts
    }
    tokens = len(pieces + words)
    source = train_tokenizer(TEXTS, tokens)
    file = write_gguf(tmp_path / "a.gguf", tiny_lm(source), source, keys=keys)
    card = import_gguf(file, tmp_path / "lm")
    tokenizer = load_lm(tmp_path / "lm")[1]
    assert tokenizer.convert_ids_to_tokens(tokenizer("ab a").input_ids) == ["<s>", "▁ab", "▁a"]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", None)
    assert len(card["lost"]) == 1 and "SentencePiece" in card["lost"][0]


def test_the_card_says_where_the_model_comes_from(good, tmp_path):
    import hashlib

    card = import_gguf(good, tmp_path / "lm")
    assert json.loads((tmp_path / "lm" / "card.json").read_text()) == card
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    size = good.stat().st_size
    assert card["imported_from"] == {"file": "tiny.gguf", "bytes": size, "sha256": digest}
    assert (card["name"], card["architecture"], card["dtype"]) == ("tiny", "llama", "float32")
    assert card["parameters"] == sum(p.numel() for p in load_lm(tmp_path / "lm")[0].parameters())


# The folder ---------------------------------------------------------------------------------------


def test_a_folder_is_replaced_only_on_request_and_never_with_other_things_in_it(good, tmp_path):
    said = []
    folder = tmp_path / "lm"
    folder.mkdir()
    import_gguf(good, folder)  # an empty one is taken
    with pytest.raises(FolderInUseError, match="--overwrite"):
        import_gguf(good, folder, say=said.append)
    assert said == []  # before anything is read
    before = (folder / "model.safetensors").stat().st_ino
    import_gguf(good, folder, overwrite=True, say=said.append)
    assert (folder / "model.safetensors").stat().st_ino != before and len(said) == 5
    (folder / "thesis.tex").touch()
    with pytest.raises(FolderInUseError, match="thesis.tex"):
        import_gguf(good, folder, overwrite=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["lm"]


def head(types, **values):
    """The head of a file with tensors of these types: {type: weights}."""
    return gguf_files.GGUFFile(
        Path("x.gguf"),
        "llama",
        values,
        {f"t{k}": kind for k, kind in enumerate(types)},
        {f"t{k}": n for k, n in enumerate(types.values())},
        {"Q4_0": 4.5, "Q8_0": 8.5},
    )


@pytest.mark.parametrize(
    ("types", "dtype", "lost"),
    [
        ({"F32": 5, "F16": 5, "BF16": 5}, "float32", []),
        ({"BF16": 9}, "bfloat16", []),
        ({"BF16": 9, "F32": 1}, "bfloat16", ["at most 1 part in 256"]),
        ({"F64": 1, "F32": 9}, "float32", ["weights of 64 bits were written as float32"]),
        ({"F64": 1}, "bfloat16", ["at most 1 part in 256"]),
        (
            {"F32": 1, "Q4_0": 200, "Q8_0": 799},
            "float32",
            ["79.9 % of the weights were rounded to Q8_0", "20.0 % .* Q4_0 .* 4.5 bits each"],
        ),
        ({"F32": 2, "Q4_0": 3999}, "float32", ["99.9 % .* Q4_0"]),  # never rounded up to all
    ],
)
def test_what_weights_lose_is_told_by_their_share(types, dtype, lost):
    found = list(gguf_files._lost_weights(head(types), dtype))
    assert len(found) == len(lost)
    for line, words in zip(found, lost, strict=True):
        assert re.search(words, line), line


def test_a_head_knows_its_weights_and_its_template():
    found = head({"F32": 5, "F16": 7}, **{"tokenizer.chat_template": ""})
    assert found.parameters == 12 and found.template is None
    assert (
        head({}, **{"tokenizer.chat_template": "x"}).template == "x" and head({}).template is None
    )
    assert gguf_files._some(set("dcba")) == "a, b, c, d"
    assert gguf_files._some(set("fedcba")) == "a, b, c, d and 2 more"
    error = ValueError("one\n  two " + "x" * 200)
    assert gguf_files._line(error) == f"ValueError: one two {'x' * 112}"


def test_room_is_that_of_the_weights_and_16_mib_more(tmp_path, monkeypatch):
    (file := tmp_path / "x.gguf").write_bytes(b"1234567")
    found = replace(head({"F32": 1000, "F16": 24}), path=file)
    disk, ram = 16 * 2**20, 8 * 1000 + 7
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        for short_disk, short_ram in ((0, 0), (1, 0), (0, 1)):
            free = disk + 1024 * size - short_disk
            monkeypatch.setattr(
                shutil, "disk_usage", lambda _, n=free: shutil._ntuple_diskusage(0, 0, n)
            )
            monkeypatch.setattr(memory, "free_memory", lambda _, n=ram + 1024 * size - short_ram: n)
            halves = "takes half" if size == 4 else r"another disk\.$|smaller model\.$"
            if not (short_disk or short_ram):
                gguf_files._check_room(found, tmp_path / "lm", dtype)
                continue
            error = CheckpointError if short_disk else ModelTooLargeError
            with pytest.raises(error, match=halves):
                gguf_files._check_room(found, tmp_path / "lm", dtype)


KILLED = """
import os, signal, sys
from irlbook.lm import models
from irlbook.lm.gguf_files import import_gguf
real = os.rename
os.rename = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
import_gguf(sys.argv[1], sys.argv[2], overwrite=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_a_killed_import_leaves_no_half_folder(good, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, good, tmp_path / "lm"])
    assert done.returncode == -9 and not (tmp_path / "lm").exists()
    import_gguf(good, tmp_path / "lm")  # it can be done again
    load_lm(tmp_path / "lm")


def test_room_is_asked_for_before_anything_is_done(good, tmp_path, monkeypatch):
    said = []
    weights = read_gguf(good).parameters

    def usage(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, free))

    usage(2**20)
    with pytest.raises(CheckpointError, match=r"takes 17 MiB .* 1 MiB are free .*--dtype bfloat16"):
        import_gguf(good, tmp_path / "lm", say=said.append)
    usage(2**40)
    monkeypatch.setattr(memory, "free_memory", lambda _: 2**20)
    with pytest.raises(ModelTooLargeError, match=f"{weights:,} weights, .* and 1 MiB are free"):
        import_gguf(good, tmp_path / "lm", say=said.append)
    assert set(said) == {"reading the head of the file"} and not (tmp_path / "lm").exists()


def test_a_disk_that_fills_leaves_nothing(good, tmp_path, monkeypatch):
    def full(*args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CheckpointError, match="No space left"):
        import_gguf(good, tmp_path / "lm")
    assert list(tmp_path.iterdir()) == []


# Bad files ----------------------------------------------------------------------------------------


def bytes_of(good, kind):
    data = good.read_bytes()
    return {
        "a text": b"These are no weights.",
        "empty": b"",
        "a wheel": b"PK\x03\x04" + data,
        "a pointer of LFS": b"version https://git-lfs.github.com/spec/v1\n",
        "ten bytes": data[:10],
        "half a head": data[:3000],
        "weights cut off": data[:-4000],
        "noise behind the start": data[:24] + bytes(range(256)) * 40,
        "version 1": data[:4] + (1).to_bytes(4, "little") + data[8:],
        "version 9": data[:4] + (9).to_bytes(4, "little") + data[8:],
        "big-endian": data[:4] + (3).to_bytes(4, "big") + data[8:],
    }[kind]


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("a text", ModelFileError, "not a GGUF file: it begins with b'Thes'"),
        ("empty", ModelFileError, "not a GGUF file"),
        ("a wheel", ModelFileError, "zip archive .* unpack it"),
        ("a pointer of LFS", ModelFileError, "Git LFS"),
        ("ten bytes", ModelFileError, "cut off after 10 bytes"),
        ("half a head", ModelFileError, "cut off or damaged"),
        ("weights cut off", ModelFileError, "cut off or damaged"),
        ("noise behind the start", ModelFileError, "cut off or damaged"),
        ("version 1", UnsupportedModelError, "GGUF of version 1; versions 2 and 3"),
        ("version 9", UnsupportedModelError, "GGUF of version 9"),
        ("big-endian", UnsupportedModelError, "big-endian"),
    ],
)
def test_a_file_that_is_none_is_named(kind, error, words, good, tmp_path):
    file = tmp_path / "bad.gguf"
    file.write_bytes(bytes_of(good, kind))
    refused(file, error, words)


def refused(file, error, words):
    with pytest.raises(error, match=words) as found:
        import_gguf(file, file.parent / "lm")
    text = str(found.value)
    assert "\n" not in text and str(file) in text and not (file.parent / "lm").exists()


def without(name):
    return lambda weights: weights.pop(name)


def put(name, array):
    return lambda weights: weights.update({name: np.asarray(array, "float32")})


def as_whole_numbers(weights):
    weights["blk.0.attn_q.weight"] = weights["blk.0.attn_q.weight"].astype(np.int8)


def not_a_number(weights):
    weights["blk.1.ffn_up.weight"] = np.full_like(weights["blk.1.ffn_up.weight"], np.nan)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"architecture": "gemma"}, UnsupportedModelError, "'gemma'; llama and qwen2"),
        ({"keys": {"general.type": "adapter"}}, UnsupportedModelError, "of the type 'adapter'"),
        ({"keys": {"split.count": 3}}, UnsupportedModelError, "one of 3 parts"),
        ({"keys": {"llama.block_count": None}}, ModelFileError, "does not say its block_count"),
        ({"keys": {"llama.block_count": 3}}, ModelFileError, "lacks 9 of the tensors"),
        ({"keys": {"llama.block_count": 10**6}}, ModelFileError, "1000000 layers, and holds 20 "),
        ({"keys": {"llama.block_count": "two"}}, ModelFileError, "llama.block_count = 'two'"),
        ({"keys": {"llama.attention.head_count": 0}}, ModelFileError, "head_count = 0"),
        ({"keys": {"llama.rope.freq_base": -1.0}}, ModelFileError, "freq_base = -1"),
        (
            {"keys": {"llama.attention.layer_norm_rms_epsilon": math.nan}},
            ModelFileError,
            "epsilon = nan",
        ),
        ({"keys": {"llama.expert_count": 8}}, UnsupportedModelError, "expert_count = 8"),
        (
            {"keys": {"llama.rope.scaling.type": "yarn"}},
            UnsupportedModelError,
            "rope.scaling.type = yarn",
        ),
        (
            {"keys": {"llama.attention.head_count_kv": [2, 1]}},
            UnsupportedModelError,
            r"head_count_kv = \[2, 1\]",
        ),
        (
            {"keys": {"llama.attention.key_length": 48}},
            UnsupportedModelError,
            "key_length = 48",
        ),
        ({"keys": {"llama.embedding_length": 64}}, ModelFileError, "do not make a llama"),
        ({"keys": {"tokenizer.ggml.tokens": None}}, TokenizerError, "no tokenizer"),
        ({"keys": {"tokenizer.ggml.model": "bert"}}, TokenizerError, "kind 'bert'"),
        ({"keys": {"tokenizer.ggml.merges": None}}, TokenizerError, "no merges"),
        ({"keys": {"tokenizer.ggml.merges": ["x"]}}, TokenizerError, "cannot be rebuilt"),
        ({"change": without("blk.1.attn_v.weight")}, ModelFileError, "blk.1.attn_v.weight"),
        ({"change": put("rope_freqs.weight", [1.0])}, UnsupportedModelError, "Llama 3.1"),
        ({"change": put("blk.0.attn_q.bias", [0.0] * 96)}, UnsupportedModelError, "attn_q.bias"),
        ({"change": as_whole_numbers}, UnsupportedModelError, "type I8"),
        ({"change": not_a_number}, ModelFileError, "no finite numbers, in .*up_proj"),
    ],
)
def test_a_model_that_would_become_another_is_refused(
    change, error, words, model, tokenizer, tmp_path
):
    refused(write_gguf(tmp_path / "a.gguf", model, tokenizer, **change), error, words)


def test_a_setting_that_says_nothing_new_is_no_hindrance(model, tokenizer, tmp_path):
    keys = {"llama.expert_count": 0, "llama.rope.scaling.type": "none"}
    keys |= {"llama.attention.key_length": 24, "llama.attention.value_length": 24}
    keys |= {"llama.vocab_size": len(tokenizer), "general.file_type": 0}
    import_gguf(write_gguf(tmp_path / "a.gguf", model, tokenizer, keys=keys), tmp_path / "lm")
    assert torch.equal(logits(load_lm(tmp_path / "lm")[0]), logits(model))


def test_heads_of_another_width_are_kept_or_refused(tokenizer, tmp_path):
    """A Qwen2 file whose heads are not the width divided by their number is no Qwen2 of here."""
    source = made(tokenizer, "qwen2")
    file = write_gguf(
        tmp_path / "a.gguf", source, tokenizer, keys={"qwen2.rope.dimension_count": 12}
    )
    refused(file, UnsupportedModelError, "rope.dimension_count = 12")


def test_a_file_that_is_not_there_a_folder_and_no_package(good, tmp_path, monkeypatch):
    refused_error = pytest.raises(ModelNotFoundError, match="there is no file")
    with refused_error:
        import_gguf(tmp_path / "x.gguf", tmp_path / "lm")
    refused(tmp_path, ModelFileError, "is a folder")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingDependencyError, match=r"pip install \"irlbook\[gguf\]\""):
        import_gguf(good, tmp_path / "lm")


def test_a_gguf_file_given_as_a_model_is_told_the_way(good, tmp_path):
    for name in (good, good.parent, tmp_path / "x.gguf"):
        with pytest.raises(ModelNotFoundError, match=r"irlbook models import \S+\.gguf FOLDER"):
            load_lm(name)
    assert issubclass(ModelFileError, IrlbookError)


# The command --------------------------------------------------------------------------------------


def test_the_command_and_all_that_takes_its_folder(call, good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("models", "import", good, "lm")
    assert code == 0 and "F32 in 20 tensors" in out and "next: irlbook sample lm" in out, err
    assert err == ""
    assert call("models", "import", good, "lm")[0] == 1
    assert call("models", "import", good, "lm", "--overwrite", "--dtype", "bfloat16")[0] == 0
    prompt = ("--prompt", "Who?", "--max-new-tokens", 4)
    code, out, err = call("sample", "lm", *prompt, "--out", "said.jsonl")
    assert code == 0, err
    code, out, err = call(
        "score", "--model", "lm", "--data", "said.jsonl", "--kind", "demonstrations"
    )
    assert code == 0 and "mean score" in out, err
    shown = [{"prompt": "Who?", "completion": "The bus."}] * 4
    Path("shown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shown))
    code, out, err = call(
        "train", "sft", "--model", "lm", "--data", "shown.jsonl", "--out", "run", "--steps", 2
    )
    assert code == 0, err
    code, out, _ = call("doctor", "lm")
    assert code == 0 and "chat template: a prompt is the start of its chat" in out
    code, out, err = call("models", "import", tmp_path / "none.gguf", "x")
    assert code == 1 and err.startswith("error: there is no file") and err.count("\n") == 1
