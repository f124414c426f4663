"""Attack what reads files: mutated data, models, GGUF files, notebooks and metrics.

    python tests/attack/malformed.py [--n 200] [--seed 0] [--first 0] [--only WORD]

Each case is a mutation of a good file, given to the command that reads it, in a process forked
from this one. It must end with a status that is not 0 and one message that begins with "error: ",
without a traceback, within a minute and 6 GB, and must run no code that the file brought. What is
accepted is read a second time by a plain reader (json, pyarrow, gguf, transformers, nbformat), and
the command must have made the same of it: as of the good file, or otherwise where the file says so.
"""

from __future__ import annotations

import argparse
import copy
import csv
import io
import json
import math
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from tqdm import tqdm

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from kills import make_world  # noqa: E402

TIMEOUT, MEMORY = 60.0, 6 * 2**30
MOST_SAID = 8000  # letters of an error
DEEP = 100_000
CLOSE = 1e-4  # nats: two ways to the same log-probability
MODELS = ("model", "tokenizer", "adapter")  # a folder each
CANARY = "canary"  # what no file may bring into the world

Call = Callable[[list[str]], tuple[int, str, str]]


@dataclass(frozen=True)
class Case:
    """One bad file.

    Attributes:
        kind: of file; which command reads it, and who reads it a second time.
        name: what was done to it.
        make: writes it into a folder of its own, and gives its path.
        sure: that no reader may accept it.
    """

    kind: str
    name: str
    make: Callable[[Path], Path]
    sure: bool = False


@dataclass
class Report:
    """How cases ended."""

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    ENDS = ("refused", "as the good one", "otherwise, as it says", "failed")

    def __str__(self) -> str:
        kinds = list(dict.fromkeys(kind for kind, _ in self.ended))
        lines = [f"{'kind':14} {'tried':>6}" + "".join(f"{end:>23}" for end in self.ENDS)]
        for kind in [*kinds, "all"]:
            own = [
                sum(n for (k, e), n in self.ended.items() if e == end and kind in (k, "all"))
                for end in self.ENDS
            ]
            lines.append(f"{kind:14} {sum(own):6}" + "".join(f"{n:23}" for n in own))
        return "\n".join([*lines, f"failures: {len(self.failures)}"])


# Mutations ----------------------------------------------------------------------------------------


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data))]


def _flip(data: bytes, rng: np.random.Generator, times: int = 1) -> bytes:
    found = bytearray(data)
    for _ in range(times):
        found[rng.integers(len(found))] ^= 1 << int(rng.integers(8))
    return bytes(found)


def _insert(data: bytes, rng: np.random.Generator) -> bytes:
    at = rng.integers(len(data))
    return data[:at] + rng.bytes(rng.integers(1, 40)) + data[at:]


def _drop(data: bytes, rng: np.random.Generator) -> bytes:
    at = rng.integers(len(data))
    return data[:at] + data[at + rng.integers(1, 1 + len(data) // 4) :]


def _again(data: bytes, rng: np.random.Generator) -> bytes:
    at, end = sorted(rng.integers(len(data), size=2))
    return data[:end] + data[at:end] + data[end:]


def _zeros(data: bytes, rng: np.random.Generator) -> bytes:
    at = rng.integers(len(data))
    size = min(len(data) - at, int(rng.integers(1, 64)))
    return data[:at] + bytes(size) + data[at + size :]


def _counts(data: bytes, rng: np.random.Generator) -> bytes:
    """A huge number where a count may stand: eight bytes of the head."""
    at = int(rng.integers(max(1, min(len(data) - 8, 400))))
    huge = int(rng.choice([2**31, 2**40, 2**62])) + int(rng.integers(9))
    return data[:at] + huge.to_bytes(8, "little") + data[at + 8 :]


BYTES: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "cut off": _cut,
    "a bit flipped": _flip,
    "16 bits flipped": partial(_flip, times=16),
    "bytes put in": _insert,
    "bytes left out": _drop,
    "a part twice": _again,
    "bytes zeroed": _zeros,
    "noise": lambda data, rng: rng.bytes(min(len(data), 5000)),
    "empty": lambda data, rng: b"",
    "begins as a zip": lambda data, rng: b"PK\x03\x04" + data,
    "a huge number": _counts,
}
TEXTS: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "in UTF-16": lambda data, rng: data.decode().encode("utf-16"),
    "in Latin-1": lambda data, rng: "é".encode("latin-1").join([data[:20], data[20:]]),
    "with a byte order mark": lambda data, rng: b"\xef\xbb\xbf" + data,
    "lines end as on Windows": lambda data, rng: data.replace(b"\n", b"\r\n"),
    "a page of HTML": lambda data, rng: b"<!DOCTYPE html><title>404</title>",
    "a pointer of Git LFS": lambda data, rng: b"version https://git-lfs.github.com/spec/v1\n",
}
VALUES: dict[str, Any] = {
    "null": None,
    "NaN": math.nan,
    "infinity": -math.inf,
    "-1": -1,
    "0": 0,
    "a huge number": 10**12,
    "a number of 400 digits": 10**400,
    "a fraction": 1.5,
    "true": True,
    "an empty text": "",
    "another text": "\x00\ud800 nothing",
    "a megabyte of text": "x" * 2**20,
    "an empty list": [],
    "an empty object": {},
    "a list of its own": [1, "two", None, {"three": 3}],
}


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values in a tree of JSON."""
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in parts:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*path, key))


def change_tree(text: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """JSON with one value that is another, gone, twice, or nested; how, and the text."""
    tree = json.loads(text)
    places = list(_places(tree))
    # Places near the root are few, and as likely as all that lie deeper together.
    depth = int(rng.integers(1, 1 + max(map(len, places))))
    near = [one for one in places if len(one) <= depth]
    path = near[rng.integers(len(near))]
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    where = "/".join(map(str, path))[:60]
    how = str(rng.choice([*VALUES, "left out", "nested deeply", "under another name", "twice"]))
    marker = "@the value@"
    if how in VALUES:
        parent[path[-1]] = VALUES[how]
        return f"{where} is {how}", json.dumps(tree).encode()
    if how == "left out":
        del parent[path[-1]]
        return f"{where} left out", json.dumps(tree).encode()
    if how == "under another name" and isinstance(parent, dict):
        parent[f"{path[-1]}x"] = parent.pop(path[-1])
        return f"{where} {how}", json.dumps(tree).encode()
    if how == "twice" and isinstance(parent, dict):
        value = json.dumps(parent[path[-1]])
        parent[path[-1]] = marker
        key = json.dumps(path[-1])
        return f"{where} twice", json.dumps(tree).replace(
            f'"{marker}"', f"{value}, {key}: {value}"
        ).encode()  # fmt: skip
    parent[path[-1]] = marker
    nest = "[" * DEEP + "]" * DEEP
    return f"{where} nested deeply", json.dumps(tree).replace(f'"{marker}"', nest).encode()


# The good files, and what is made of them ---------------------------------------------------------


class Good:
    """A world of good files, and what each command makes of them."""

    def __init__(self, home: Path, call: Call) -> None:
        from notebook_builder import chapter, save

        from irlbook.data import read_preferences, write_preferences
        from irlbook.lm import models

        self.home, self.call = home, call
        self.readings: dict[str, Any] = {}
        self.world = make_world(home)
        pairs = read_preferences(self.world / "pairs.jsonl")[:8]
        self.files = {
            kind: write_preferences(self.world / f"good.{kind}", pairs)
            for kind in ("jsonl", "json", "parquet", "jsonl.gz")
        }
        text = io.StringIO()
        table = csv.DictWriter(text, ["prompt", "chosen", "rejected"])
        table.writeheader()
        table.writerows({k: getattr(p, k) for k in table.fieldnames} for p in pairs)
        self.files["csv"] = self.world / "good.csv"
        self.files["csv"].write_text(text.getvalue(), encoding="utf-8")
        self.files["notebook"] = save(chapter(), self.world / "good.ipynb")
        metrics = "step,loss,accuracy\n" + "".join(f"{i},{1 / i},0.5\n" for i in range(1, 9))
        self.files["metrics"] = self.world / "metrics.csv"
        self.files["metrics"].write_text(metrics, encoding="utf-8")
        self.model, self.tokenizer = models.load_lm(self.world / "start")
        if find_spec("peft"):
            models.save(models.add_lora(copy.deepcopy(self.model), rank=2), self.tokenizer,
                        self.world / "adapter")  # fmt: skip
        try:
            from gguf_writer import write_gguf
        except ImportError:
            pass
        else:
            self.files["gguf"] = write_gguf(self.world / "good.gguf", self.model, self.tokenizer)

    def reading(self, kind: str) -> Any:
        """What a plain reader makes of the good file of a kind."""
        if kind not in self.readings:
            folder = self.world / ("adapter" if kind == "adapter" else "start")
            self.readings[kind] = second_reading(self, kind, self.files.get(kind, folder))
        return self.readings[kind]

    def command(self, kind: str, path: Path) -> list[str]:
        """The command that reads a file of this kind; what it writes lies beside the file."""
        out = path.parent / "out"
        if kind in MODELS:
            data = self.files["jsonl"]
            words = ["score", "--model", path, "--data", data, "--out", f"{out}.csv"]
        elif kind == "gguf":
            words = ["models", "import", path, out]
        elif kind == "notebook":
            words = ["check", path]
        elif kind == "executed notebook":
            words = ["run", path, "--out", out]
        elif kind == "metrics":
            words = ["plot", path.parent, "--out", f"{out}.png"]
        else:
            start = self.world / "start"
            words = ["score", "--model", start, "--data", path, "--out", f"{out}.csv"]
        return [str(word) for word in words]


def copied(good: Good, folder: Path, name: str, data: bytes | None, source: str = "start") -> Path:
    """A good model with one file that is another, or is not there."""
    shutil.copytree(good.world / source, folder / "model")
    (folder / "model" / name).unlink(missing_ok=True)
    if data is not None:
        (folder / "model" / name).write_bytes(data)
    return folder / "model"


def written(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


# Cases --------------------------------------------------------------------------------------------


class Bait:
    """A pickle that leaves a canary where it is opened."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({CANARY!r}, 'w').close()",)


EVIL = f"""open({CANARY!r}, "w").close()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class EvilConfig(LlamaConfig): model_type = "evil"
class Evil(LlamaForCausalLM): config_class = EvilConfig
class EvilTokenizer(PreTrainedTokenizerFast): pass
"""


def _with_code(good: Good, folder: Path, name: str, changes: Mapping[str, Any]) -> Path:
    model = copied(good, folder, "evil.py", EVIL.encode())
    content = json.loads((model / name).read_text(encoding="utf-8")) | changes
    (model / name).write_text(json.dumps(content), encoding="utf-8")
    return model


def _pickled(good: Good, folder: Path, name: str, keep: bool = False) -> Path:
    model = copied(good, folder, name, pickle.dumps(Bait()))
    if not keep and name != "model.safetensors":
        (model / "model.safetensors").unlink()
    return model


def _template(good: Good, folder: Path, text: str) -> Path:
    return copied(good, folder, "chat_template.jinja", text.encode())


def _weights(good: Good, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    from safetensors.torch import load_file, save_file

    model = copied(good, folder, "nothing", None)
    weights = load_file(model / "model.safetensors")
    change(weights)
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    return model


def _header(good: Good, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The weights under a head that says otherwise."""
    data = (good.world / "start" / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    changed = change(head)
    text = json.dumps(head if changed is None else changed).encode()
    new = len(text).to_bytes(8, "little") + text + data[8 + size :]
    return copied(good, folder, "model.safetensors", new)


def _gguf(good: Good, folder: Path, **more: Any) -> Path:
    from gguf_writer import write_gguf

    return write_gguf(folder / "bad.gguf", good.model, good.tokenizer, **more)


def _without_end(weights: dict[str, Any]) -> None:
    """A norm of infinite weights; a copy, since these arrays are the good model's own memory."""
    norm = weights["output_norm.weight"]
    weights["output_norm.weight"] = np.full_like(norm, math.inf)


def _row(**changes: Any) -> bytes:
    row = {"prompt": "Review it.", "chosen": "Good.", "rejected": "Bad."} | changes
    return (json.dumps(row) + "\n").encode() * 3


def fixed_cases(good: Good) -> list[Case]:
    """Cases that chance would not find."""
    first = "model.layers.0.self_attn.q_proj.weight"
    nested = b'{"prompt": ' + b"[" * DEEP + b"]" * DEEP + b', "chosen": "a", "rejected": "b"}\n'
    data = {
        "a pickle": pickle.dumps(Bait()),
        "deep nesting": nested,
        "NaN as a margin": _row(margin=math.nan),
        "a margin of 400 digits": _row(margin=10**400),
        "a number for a text": _row(chosen=7),
        "lists of lists": _row(chosen=[[["a"]]]),
        "a message without content": _row(prompt=[{"role": "user"}]),
        "a role of the file's own": _row(prompt=[{"role": "root", "content": "x"}]),
        "half a surrogate": b'{"prompt": "a", "chosen": "\\ud800", "rejected": "b"}\n',
        "one key twice": b'{"prompt": "a", "prompt": "b", "chosen": "c", "rejected": "d"}\n',
        "an array that does not end": b"[" + _row() * 2,
        "a number alone": b"7\n",
        "both answers the same": _row(chosen="Bad."),
    }
    cases = [
        Case("jsonl", name, partial(written, name="bad.jsonl", data=content), sure=True)
        for name, content in data.items()
    ]
    cases += [
        Case("csv", "a table of text", partial(written, name="bad.csv",
             data=good.files["csv"].read_bytes()), sure=True),
        Case("parquet", "a pickle", partial(written, name="bad.parquet",
             data=b"PAR1" + pickle.dumps(Bait()) + b"PAR1"), sure=True),
    ]  # fmt: skip
    maps = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil"}
    tokens = {"auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]}}
    code = {
        "code of its own": ("config.json", {"auto_map": maps, "model_type": "evil"}, True),
        "code of its own for a known kind": ("config.json", {"auto_map": maps}, False),
        "a tokenizer with code": (
            "tokenizer_config.json",
            tokens | {"tokenizer_class": "EvilTokenizer"},
            False,
        ),
    }
    cases += [
        Case("model", name, partial(_with_code, good, name=file, changes=changes), sure)
        for name, (file, changes, sure) in code.items()
    ]
    cases += [
        Case("model", f"pickled weights in {name}", partial(_pickled, good, name=name), sure=True)
        for name in ("pytorch_model.bin", "model.pt", "model.safetensors")
    ]
    cases += [
        Case("model", f"a pickle beside the weights, {name}",
             partial(_pickled, good, name=name, keep=True))
        for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt")
    ]  # fmt: skip
    index = json.dumps({"metadata": {}, "weight_map": {first: "../../secret.safetensors"}})
    adapter = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None}
    cases += [
        *(
            Case("model", f"no {name}", partial(copied, good, name=name, data=None), sure)
            for name, sure in (
                ("config.json", True),
                ("model.safetensors", True),
                ("tokenizer.json", True),
                ("tokenizer_config.json", False),
                ("generation_config.json", False),
            )
        ),
        Case("model", "an index of files elsewhere", partial(
            copied, good, name="model.safetensors.index.json", data=index.encode())),
        Case("model", "an adapter's settings cut off", partial(
            copied, good, name="adapter_config.json", data=b'{"task_type": '), sure=True),
        Case("model", "an adapter without a base", partial(copied, good,
             name="adapter_config.json", data=json.dumps(adapter).encode()), sure=True),
        Case("model", "an adapter's settings are a list", partial(
            copied, good, name="adapter_config.json", data=b"[]"), sure=True),
    ]  # fmt: skip
    changes: dict[str, tuple[Callable[[dict[str, Any]], Any], bool]] = {
        "NaN among the weights": (lambda w: w[first].view(-1)[:1].fill_(math.nan), True),
        "infinite weights": (lambda w: w[first].fill_(math.inf), True),
        "a weight missing": (lambda w: w.pop(first), True),
        "a weight of another size": (lambda w: w.update({first: w[first][:3].clone()}), True),
        "a weight too many": (lambda w: w.update({"model.more": w[first].clone()}), False),
        "whole numbers as weights": (lambda w: w.update({first: w[first].int()}), False),
    }
    cases += [
        Case("model", name, partial(_weights, good, change=change), sure)
        for name, (change, sure) in changes.items()
    ]
    heads: dict[str, Callable[[dict[str, Any]], Any]] = {
        "weights that overlap": lambda h: h[first].update(data_offsets=[0, 4096]),
        "weights beyond the end": lambda h: h[first].update(data_offsets=[2**40, 2**40 + 4096]),
        "an unknown type": lambda h: h[first].update(dtype="F7"),
        "a shape below zero": lambda h: h[first].update(shape=[-32, 32]),
        "a huge shape": lambda h: h[first].update(shape=[2**62, 4]),
        "a head that is a list": lambda h: [1, 2, 3],
        "a head that is empty": lambda h: {},
    }
    cases += [
        Case("model", name, partial(_header, good, change=change), sure=True)
        for name, change in heads.items()
    ]
    config = json.loads((good.world / "start" / "config.json").read_text(encoding="utf-8"))
    sizes = {
        "a million layers": {"num_hidden_layers": 10**6},
        "no layers": {"num_hidden_layers": 0},
        "a width of 2^40": {"hidden_size": 2**40},
        "a vocabulary of 2^50": {"vocab_size": 2**50},
        "heads that do not divide": {"num_attention_heads": 7},
        "no heads": {"num_attention_heads": 0},
        "an activation of its own": {"hidden_act": "os.system"},
        "an attention of its own": {"_attn_implementation": "evil/kernel"},
        "a quantisation of its own": {"quantization_config": {"quant_method": "evil"}},
        "architectures that are a text": {"architectures": "LlamaForCausalLM"},
    }
    cases += [
        Case("model", name, partial(copied, good, name="config.json",
             data=json.dumps(config | change).encode()))
        for name, change in sizes.items()
    ]  # fmt: skip
    templates = {
        "a template that reaches for the system": (
            "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ messages[0]['content'] }}"
        ),
        "a template that does not parse": "{% for message in messages %}{{",
        "a template that raises": "{{ raise_exception('no') }}",
        "a template of nothing": "",
        "a template that divides by zero": "{{ 1 / 0 }}",
        "a template that asks for what is not there": "{{ messages[99].content.nothing }}",
    }
    cases += [
        Case("tokenizer", name, partial(_template, good, text=text))
        for name, text in templates.items()
    ]
    cases += [
        Case("tokenizer", f"{name} is {what}", partial(copied, good, name=name, data=data), True)
        for name in ("tokenizer.json", "tokenizer_config.json")
        for what, data in (("a number", b"7"), ("a list", b"[]"), ("not JSON", b"{"),
                           ("not text", b"\xff\xfe\x00"))
    ]  # fmt: skip
    if "gguf" in good.files:
        keys: dict[str, dict[str, Any]] = {
            "no end": {"tokenizer.ggml.eos_token_id": None},
            "an end that is no token": {"tokenizer.ggml.eos_token_id": 10**9},
            "tokens that are numbers": {"tokenizer.ggml.tokens": list(range(290))},
            "tokens that are all the same": {"tokenizer.ggml.tokens": ["a"] * 290},
            "few tokens": {"tokenizer.ggml.tokens": ["a", "b"]},
            "a template with code": {"tokenizer.chat_template": templates[next(iter(templates))]},
            "no layers": {"llama.block_count": 0},
            "2^31 layers": {"llama.block_count": 2**31},
            "a million layers": {"llama.block_count": 10**6},
            "no heads": {"llama.attention.head_count": 0},
            "heads as a text": {"llama.attention.head_count": "two"},
            "a norm that is NaN": {"llama.attention.layer_norm_rms_epsilon": math.nan},
            "no context": {"llama.context_length": 0},
            "a base of 0": {"llama.rope.freq_base": 0.0},
            "a type of token of its own": {"tokenizer.ggml.token_type": [99] * 290},
        }
        cases += [
            Case("gguf", name, partial(_gguf, good, keys=change)) for name, change in keys.items()
        ]
        cases.append(
            Case("gguf", "infinite weights", partial(
                _gguf, good, change=_without_end), sure=True)
        )  # fmt: skip
    notebooks = {
        "cells that are a number": {"cells": 7},
        "no cells": {},
        "a cell that is a number": {"cells": [7]},
        "cells nested in cells": {"cells": [{"cells": []}]},
        "another format": {"cells": [], "nbformat": 3, "nbformat_minor": 0},
        "another language": {"cells": [], "nbformat": 4, "nbformat_minor": 5,
                             "metadata": {"kernelspec": {"language": "R", "name": "r",
                                                         "display_name": "R"}}},
        "metadata that are a list": {"cells": [], "nbformat": 4, "nbformat_minor": 5,
                                     "metadata": []},
        "a picture that is none": {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [
            {"cell_type": "code", "source": 7, "metadata": {}, "outputs": [7]}]},
    }  # fmt: skip
    cases += [
        Case(kind, name, partial(written, name="bad.ipynb", data=json.dumps(tree).encode()), True)
        for name, tree in notebooks.items()
        for kind in ("notebook", "executed notebook")
    ]
    brackets = b'{"cells": ' + b"[" * DEEP
    cases.append(
        Case("notebook", "nested deeply", partial(written, name="b.ipynb", data=brackets), True)
    )
    return cases


def random_case(good: Good, rng: np.random.Generator) -> Case:
    """A mutation drawn at random of a file drawn at random."""
    kinds = ["jsonl"] * 4 + ["json", "parquet", "parquet", "jsonl.gz", "csv"] + ["model"] * 6
    kinds += ["adapter"] * 2 * (good.world / "adapter").exists()
    kinds += (
        ["tokenizer"] * 3 + ["notebook"] * 4 + ["metrics"] + ["gguf"] * 4 * ("gguf" in good.files)
    )
    kind = str(rng.choice(kinds))
    names = {
        "model": ["config.json", "generation_config.json", *["model.safetensors"] * 3],
        "tokenizer": ["tokenizer.json", "tokenizer.json", "tokenizer_config.json"],
        "adapter": ["adapter_config.json", "adapter_model.safetensors"],
    }.get(kind)
    if names:
        file, source = str(rng.choice(names)), "adapter" if kind == "adapter" else "start"
        data = (good.world / source / file).read_bytes()
        make: Callable[[bytes], Callable[[Path], Path]] = lambda new: partial(  # noqa: E731
            copied, good, name=file, data=new, source=source
        )
    else:
        file = {"notebook": "bad.ipynb", "metrics": "metrics.csv"}.get(kind, f"bad.{kind}")
        data = good.files[kind].read_bytes()
        make = lambda new: partial(written, name=file, data=new)  # noqa: E731
    text = file.endswith((".json", ".jsonl", ".ipynb", ".csv"))
    if text and not file.endswith(".csv") and rng.random() < 0.6:
        if file.endswith(".jsonl"):
            lines = data.splitlines()
            at = int(rng.integers(len(lines)))
            how, lines[at] = change_tree(lines[at], rng)
            return Case(kind, f"line {at + 1}: {how}", make(b"\n".join(lines)))
        how, new = change_tree(data, rng)
        return Case(kind, f"{file}: {how}", make(new))
    mutations = BYTES | (TEXTS if text else {})
    how = str(rng.choice(list(mutations)))
    return Case(kind, f"{file}: {how}", make(mutations[how](data, rng)))


# The second reader --------------------------------------------------------------------------------


def second_reading(good: Good, kind: str, path: Path) -> Any:
    """What a plain reader makes of the file, in the form of `made`; raises where it cannot."""
    if kind in MODELS:
        return _plain_scores(good, path, good.files["jsonl"])
    if kind == "gguf":
        import gguf

        reader = gguf.GGUFReader(path)
        values = {name: one.contents() for name, one in reader.fields.items()}
        found = {t.name: gguf.dequantize(t.data, t.tensor_type).tobytes() for t in reader.tensors}
        settings = [key for key in values if key.startswith("llama.")]
        found |= {key: _rounded(values[key]) for key in settings}
        return found | {"tokens": values["tokenizer.ggml.tokens"]}
    if "notebook" in kind:
        import nbformat

        book = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        nbformat.validate(book)
        return None
    if kind == "metrics":
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
        return [[float(cell) for cell in row if cell] for row in rows[1:]] and None
    return _plain_scores(good, good.world / "start", path)


def _plain_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    data = path.read_bytes()
    if path.suffix == ".gz":
        import gzip

        data = gzip.decompress(data)
    text = data.decode("utf-8-sig")
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _plain_scores(good: Good, model: Path, data: Path) -> list[float]:
    """The log-probabilities by transformers' own forward, a row a response."""
    import torch
    import transformers

    from irlbook.lm.logprobs import padded_token_logps
    from irlbook.lm.tokenization import encode_prompt, encode_response

    loaded, found = good.model, []
    if (model / "adapter_config.json").exists():
        import peft

        loaded = peft.PeftModel.from_pretrained(copy.deepcopy(good.model), model).eval()
    elif model != good.world / "start":
        loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype="float32").eval()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(model)
    for row in _plain_rows(data):
        if not all(isinstance(row[name], str) for name in ("prompt", "chosen", "rejected")):
            raise OtherFormat
        if row["chosen"] == row["rejected"]:
            continue  # which is reported, and left out
        for name in ("chosen", "rejected"):
            group = (encode_prompt(tokenizer, row["prompt"]),
                     [encode_response(tokenizer, row[name])])  # fmt: skip
            with torch.no_grad():
                found.append(float(padded_token_logps(loaded, [group]).sum()))
    return found


class OtherFormat(Exception):
    """The rows are of another format than the good ones', which the second reader does not know."""


def made(kind: str, path: Path) -> Any:
    """What the command made of a file that it accepted, to be compared with the second reading."""
    out = path.parent / "out"
    if kind == "gguf":
        from gguf_writer import settings, tensors

        from irlbook.lm.models import load_lm

        model, tokenizer = load_lm(out)
        found = {name: array.tobytes() for name, array in tensors(model).items()}
        own = settings(model.config)
        own["rope.freq_base"] = model.config.rope_parameters["rope_theta"]
        found |= {f"llama.{key}": _rounded(value) for key, value in own.items()}
        return found | {"tokens": tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))}
    if "notebook" in kind or kind == "metrics":
        return None
    with open(f"{out}.csv", newline="", encoding="utf-8") as file:
        return [float(row["score"]) for row in csv.DictReader(file)]


def _rounded(value: Any) -> Any:
    """A GGUF file has 32 bits for a fraction."""
    return float(np.float32(value)) if isinstance(value, float) else value


def alike(a: Any, b: Any) -> bool:
    """Whether two readings are one."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(abs(x - y) <= CLOSE for x, y in zip(a, b, strict=True))
    return a == b


# One case -----------------------------------------------------------------------------------------


def in_process(words: list[str]) -> tuple[int, str, str]:
    """`irlbook WORDS` in this process: (status, stdout, stderr)."""
    from irlbook import cli

    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with (
        mock.patch.object(sys, "argv", ["irlbook", *words]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
    return int(code), out.getvalue(), err.getvalue()


def forked(work: Callable[[], Any]) -> tuple[bool, Any]:
    """(True, what `work` gives) from a child process, or (False, how it ended)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        try:
            answer = pickle.dumps((True, work()))
        except BaseException as error:
            answer = pickle.dumps((False, f"{type(error).__name__}: {str(error)[:300]}"))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(writing)
    end, parts = time.monotonic() + TIMEOUT, []
    import select

    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while (left := end - time.monotonic()) > 0:
            if select.select([pipe], [], [], left)[0]:
                if not (part := pipe.read(1 << 20)):
                    break
                parts.append(part)
        else:
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if left <= 0:
        return False, f"took more than {TIMEOUT:.0f} s"
    if os.WIFSIGNALED(status):
        return False, f"was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return pickle.loads(b"".join(parts))  # of this program's own


def isolated(words: list[str]) -> tuple[int, str, str]:
    """As `in_process`, in a child."""
    fine, answer = forked(partial(in_process, words))
    return answer if fine else (-1, "", answer)


def judge(case: Case, good: Good, folder: Path) -> tuple[str, str]:
    """How a case ended, one of `Report.ENDS`, and what was said or is wrong."""
    folder.mkdir()
    path = case.make(folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        code, out, err = good.call(good.command(case.kind, path))
    finally:
        os.chdir(here)
    said = err.strip()
    traces = [one for place in (folder, here, good.world) for one in place.rglob(CANARY)]
    if traces:
        for one in traces:
            one.unlink()
        return "failed", "code was run that the file brought"
    if code:
        return _refusal(case, code, out, said)
    if case.sure:
        return "failed", f"accepted: {out.strip()[-200:]}"
    with redirect_stderr(io.StringIO()):
        fine, expected = forked(partial(second_reading, good, case.kind, path))
    if not fine:
        if expected.startswith("OtherFormat"):
            return "otherwise, as it says", "another format"
        return "failed", f"accepted, and a plain reader says {expected}"
    found = made(case.kind, path)
    if not alike(found, expected):
        return "failed", f"accepted, and read as {str(found)[:200]} for {str(expected)[:200]}"
    if isinstance(found, list) and not all(map(math.isfinite, found)):
        return "failed", f"accepted, with scores {found[:4]}"
    same = found is None or alike(found, good.reading(case.kind))
    return ("as the good one" if same else "otherwise, as it says"), said


def _refusal(case: Case, code: int, out: str, said: str) -> tuple[str, str]:
    if code < 0 or "Traceback" in said or '  File "' in said:
        return "failed", said[-600:]
    if case.kind == "notebook" and not said:  # `check` lists problems, and each is a line
        told = [line for line in out.splitlines() if ".ipynb: " in line]
        return ("refused", told[0]) if told else ("failed", f"says {out[-300:]!r}")
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    if len(errors) != 1:
        return "failed", f"says {said[-400:]!r}"
    if len(said) > MOST_SAID:
        return "failed", f"says {len(said)} letters: {said[:200]}"
    return "refused", errors[0]


# All of it ----------------------------------------------------------------------------------------


def cases(good: Good, n: int, seed: int = 0, first: int = 0) -> list[Case]:
    """Cases first ... first + n - 1: the fixed ones, and as many drawn ones as are wanted."""
    fixed = fixed_cases(good)
    return [
        fixed[i] if i < len(fixed) else random_case(good, np.random.default_rng([seed, i]))
        for i in range(first, first + n)
    ]


def attack(chosen: list[Case], good: Good, progress: bool = False, log: bool = False) -> Report:
    """Try cases, each in a folder of its own that goes when the case was as it must be."""
    report = Report()
    for i, case in enumerate(tqdm(chosen, disable=not progress, unit="file", mininterval=5)):
        folder = good.home / f"case-{i}"
        ended, said = judge(case, good, folder)
        report.ended[case.kind, ended] += 1
        if ended == "failed":
            report.failures.append(f"{case.kind}, {case.name}: {said}")
            tqdm.write(report.failures[-1], file=sys.stderr)
        elif log:
            tqdm.write(f"{case.kind:10} {case.name:50} {ended}: {said[:150]}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
    return report


def prepare() -> None:
    """Import all that children will need, once."""
    import torch
    import transformers  # noqa: F401

    import irlbook.authoring.lint
    import irlbook.lm.gguf_files
    import irlbook.posttraining.files
    import irlbook.run_plots  # noqa: F401

    torch.set_num_threads(1)  # a forked child has no others
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.simplefilter("default")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200, help="files; the fixed ones come first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="begin with this one")
    parser.add_argument("--only", default="", help="cases whose kind or name holds this")
    parser.add_argument("--log", action="store_true", help="tell how each ended")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    prepare()
    with tempfile.TemporaryDirectory() as temporary:
        good = Good(Path(temporary).resolve(), isolated)
        chosen = cases(good, options.n, options.seed, options.first)
        chosen = [one for one in chosen if options.only in f"{one.kind} {one.name}"]
        report = attack(chosen, good, progress=True, log=options.log)
    print(report)
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
