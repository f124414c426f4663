"""A GGUF file, llama.cpp's format, becomes a folder of safetensors that any program here loads.

What a GGUF file holds is read by the package `gguf` and turned into a model and a tokenizer by
transformers. What those two pass over in silence is looked at here: a key or a tensor that they
leave out would make another model of it, and a rule that cuts texts another tokenizer.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.utils import logging

from irlbook.data.files import FOREIGN
from irlbook.errors import (
    CheckpointError,
    FolderInUseError,
    MissingDependencyError,
    ModelFileError,
    ModelNotFoundError,
    ModelTooLargeError,
    TokenizerError,
    UnsupportedModelError,
)
from irlbook.lm import memory, models

__all__ = [
    "DTYPES",
    "GGUFFile",
    "GPT2_RULES",
    "KEYS",
    "LAYER",
    "ROOM",
    "TOKENIZERS",
    "VERSIONS",
    "import_gguf",
    "read_gguf",
]

VERSIONS = (2, 3)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOKENIZERS = ("gpt2", "llama")  # what llama.cpp calls byte-level BPE, and SentencePiece's BPE
GPT2_RULES = ("default", "gpt-2", "gpt2")
KEYS = {  # of an architecture's settings, those that transformers reads or that say nothing new
    "attention.head_count",
    "attention.head_count_kv",
    "attention.layer_norm_rms_epsilon",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "vocab_size",
}
LAYER = (
    *("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"),
    *("ffn_norm", "ffn_gate", "ffn_up", "ffn_down"),
)
ROOM = 16 * 2**20  # bytes for a tokenizer and the small files beside the weights


@dataclass(frozen=True)
class GGUFFile:
    """What the head of a GGUF file says.

    Attributes:
        architecture: llama or qwen2.
        values: all keys of the file with their values.
        types: {tensor: its type in the file}, as Q4_1 or F32.
        sizes: {tensor: its number of weights}.
        bits: {type: bits a weight takes in the file, its block's scales among them}.
    """

    path: Path
    architecture: str
    values: Mapping[str, Any]
    types: Mapping[str, str]
    sizes: Mapping[str, int]
    bits: Mapping[str, float]

    @property
    def parameters(self) -> int:
        return sum(self.sizes.values())

    @property
    def template(self) -> str | None:
        return self.values.get("tokenizer.chat_template") or None


def import_gguf(
    file: str | Path,
    folder: str | Path,
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Turn a GGUF file into a folder with safetensors, tokenizer, chat template and card.json.

    The folder appears when all of it is written, and not before.

    Args:
        file: a Llama or Qwen2 model of any quantisation that the package `gguf` can unpack.
        folder: a new folder, or an empty one.
        dtype: what the weights are written in. float32 keeps every number of the file; bfloat16
            takes half the room and rounds each weight by at most 1 part in 256.
        overwrite: replace the model that `folder` holds.
        say: is told what is done now; the slow parts take seconds.

    Returns:
        The card: where the model comes from, its types, and what was lost on the way.

    Raises:
        ModelNotFoundError, ModelFileError: no such file; not GGUF, damaged, cut off.
        UnsupportedModelError: a version, architecture, setting or type that is not supported.
        TokenizerError: the file holds no tokenizer, or one of another kind.
        FolderInUseError, CheckpointError: the folder holds something, or there is no room for it.
        ModelTooLargeError: there is not the memory to unpack the model.
        MissingDependencyError: the package gguf is not installed.
    """
    say = say or (lambda text: None)
    folder = Path(folder)
    if dtype not in DTYPES:
        raise UnsupportedModelError(f"dtype is {dtype!r}; use {' or '.join(DTYPES)}.")
    _check_folder(folder, overwrite)
    models.remove_leftovers(folder)
    say("reading the head of the file")
    found = read_gguf(file)
    _check_room(found, folder, DTYPES[dtype])
    say("computing the file's checksum")
    with found.path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    say("rebuilding the tokenizer")
    tokenizer, lost = _tokenizer(found)
    say(f"unpacking {found.parameters:,} weights")
    model = _model(found, tokenizer, DTYPES[dtype])
    card = {
        "imported_from": {
            "file": found.path.name,
            "bytes": found.path.stat().st_size,
            "sha256": digest,
        },
        "name": found.values.get("general.name"),
        "licence": found.values.get("general.license"),
        "architecture": found.architecture,
        "parameters": found.parameters,
        "tensors": dict(Counter(found.types.values()).most_common()),
        "dtype": dtype,
        "lost": [*_lost_weights(found, dtype), *lost],
        "made_by": {name: version(name) for name in ("irlbook", "transformers", "gguf", "torch")},
    }
    say(f"writing {folder}")
    models.save(model, tokenizer, folder, card)
    return card


# The head of the file -----------------------------------------------------------------------------


def read_gguf(file: str | Path) -> GGUFFile:
    """The head of a GGUF file, after a look at all that could go wrong with it.

    Raises:
        As :func:`import_gguf`, as far as the file is concerned.
    """
    path = Path(file).absolute()
    _check_start(path)
    gguf = _gguf()
    try:
        reader = gguf.GGUFReader(path)
        values = {name: _value(field) for name, field in reader.fields.items()}
    except Exception as error:  # numpy's, about whatever lies where the head ends
        raise ModelFileError(
            f"{path} is a GGUF file that is cut off or damaged ({_line(error)}). Fetch it again, "
            "and compare its size and checksum with those of its source."
        ) from error
    architecture = str(values.get("general.architecture"))
    found = GGUFFile(
        path,
        architecture,
        values,
        {one.name: one.tensor_type.name for one in reader.tensors},
        {one.name: int(one.n_elements) for one in reader.tensors},
        {
            one.tensor_type.name: 8
            * gguf.GGML_QUANT_SIZES[one.tensor_type][1]
            / gguf.GGML_QUANT_SIZES[one.tensor_type][0]
            for one in reader.tensors
        },
    )
    _check_kind(found)
    _check_settings(found)
    _check_tensors(found)
    _check_tokenizer(found)
    for one in {one.tensor_type: one for one in reader.tensors}.values():
        try:
            gguf.dequantize(one.data[:1], one.tensor_type)
        except NotImplementedError as error:
            raise UnsupportedModelError(
                f"{path} holds tensors of type {one.tensor_type.name}, which the package gguf "
                f"{version('gguf')} cannot unpack. Update it, or take a file of another type."
            ) from error
    return found


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise MissingDependencyError(
            "a GGUF file needs the package gguf, which is not installed. Run: "
            'pip install "irlbook[gguf]"'
        ) from error
    return gguf


def _value(field: Any) -> Any:
    """The value of a key: a text, a number, or a list of them."""
    if not field.types:
        return None
    texts = field.types[-1].name == "STRING"
    parts = [field.parts[i] for i in field.data]
    read = [str(bytes(part), "utf-8") if texts else part.tolist()[0] for part in parts]
    return read if field.types[0].name == "ARRAY" else read[0]


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def _check_start(path: Path) -> None:
    """Is it a GGUF file of a version that can be read?"""
    if not path.exists():
        raise ModelNotFoundError(f"there is no file {path}. Check the path.")
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder; give the .gguf file in it.")
    with path.open("rb") as stream:
        start = stream.read(24)
    if start[:4] != b"GGUF":
        known = next((what for sign, what in FOREIGN.items() if start.startswith(sign)), "")
        raise ModelFileError(
            f"{path} is not a GGUF file: it begins with {start[:4]!r} and not with b'GGUF'"
            f"{f'; it is {known}' if known else ''}. Give the .gguf file itself."
        )
    if len(start) < 24:
        raise ModelFileError(
            f"{path} is a GGUF file that is cut off after {len(start)} bytes. Fetch it again."
        )
    number = struct.unpack("<I", start[4:8])[0]
    if number not in VERSIONS:
        swapped = struct.unpack(">I", start[4:8])[0] in VERSIONS
        raise UnsupportedModelError(
            f"{path} is "
            + ("a big-endian GGUF file" if swapped else f"GGUF of version {number}")
            + f"; versions {' and '.join(map(str, VERSIONS))} in little-endian can be read. "
            "Convert the model again with a newer llama.cpp."
        )


def _check_kind(found: GGUFFile) -> None:
    """A whole language model, of an architecture whose numbers are known to come out the same."""
    if found.architecture not in models.KINDS:
        raise UnsupportedModelError(
            f"{found.path} is of the architecture {found.architecture!r}; {_or(models.KINDS)} can "
            "be imported. Take a model of one of these, or its safetensors folder."
        )
    kind = found.values.get("general.type", "model")
    if kind != "model":
        raise UnsupportedModelError(
            f"{found.path} is of the type {kind!r} and holds no whole model. Give the model."
        )
    parts = found.values.get("split.count", 0)
    if parts > 1:
        raise UnsupportedModelError(
            f"{found.path} is one of {parts} parts of a model. Join them with llama.cpp's "
            "`llama-gguf-split --merge` and give the one file."
        )


def _or(names: Any) -> str:
    return " and ".join(sorted(names))


def _check_settings(found: GGUFFile) -> None:
    """Every setting is one that transformers heeds: one that it drops makes another model."""
    kind = found.architecture
    own = {
        key.removeprefix(f"{kind}."): value
        for key, value in found.values.items()
        if key.startswith(f"{kind}.")
    }
    needed = KEYS - {"rope.dimension_count", "rope.freq_base", "vocab_size"}
    if missing := sorted(needed - set(own)):
        raise ModelFileError(
            f"{found.path} does not say its {', '.join(missing)}, so it describes no {kind} model. "
            "Fetch it again, or convert the model again."
        )
    if broken := [
        f"{kind}.{key} = {own[key]!r}"
        for key in sorted(KEYS & set(own))
        if not isinstance(own[key], list) and not _is_size(own[key])
    ]:
        raise ModelFileError(
            f"{found.path} has settings that no model has: {', '.join(broken)}. It is damaged: "
            "fetch it again, or convert the model again."
        )
    heads = own["attention.head_count"]
    odd = {key for key in KEYS & set(own) if isinstance(own[key], list)}
    unread = {key for key in set(own) - KEYS if own[key] not in (0, "none")}
    if not odd:
        head = own.get("rope.dimension_count", own["embedding_length"] // heads)
        lengths = ("attention.key_length", "attention.value_length")
        unread -= {key for key in lengths if own.get(key) == head}
        if kind == "qwen2" and head * heads != own["embedding_length"]:
            odd = {"rope.dimension_count"}
    if odd or unread:
        shown = ", ".join(f"{kind}.{key} = {own[key]}" for key in sorted(odd | unread))
        raise UnsupportedModelError(
            f"{found.path} has settings that would be lost, so that the model would compute other "
            f"numbers: {shown}. Take the model's safetensors folder instead."
        )


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf  # NaN is neither


def _check_tensors(found: GGUFFile) -> None:
    """Exactly the tensors of its architecture; the head may be the embedding's."""
    layers = found.values[f"{found.architecture}.block_count"]
    if layers > len(found.types):  # millions, say: their names alone would fill the memory
        raise ModelFileError(
            f"{found.path} says that it has {layers} layers, and holds {len(found.types)} tensors. "
            "Fetch it again, or convert the model again."
        )
    need = {"token_embd.weight", "output_norm.weight"}
    need |= {f"blk.{i}.{part}.weight" for i in range(layers) for part in LAYER}
    if found.architecture == "qwen2":
        need |= {f"blk.{i}.attn_{part}.bias" for i in range(layers) for part in "qkv"}
    have = set(found.types)
    if missing := need - have:
        raise ModelFileError(
            f"{found.path} lacks {len(missing)} of the tensors of a {found.architecture} model of "
            f"{layers} layers: {_some(missing)}. Fetch it again, or convert the model again."
        )
    if more := have - need - {"output.weight"}:
        why = " (positions scaled as in Llama 3.1)" if "rope_freqs.weight" in more else ""
        raise UnsupportedModelError(
            f"{found.path} holds tensors that a plain {found.architecture} model has no place for"
            f"{why}: {_some(more)}. Without them it would be another model; take its safetensors "
            "folder instead."
        )


def _some(names: set[str], most: int = 4) -> str:
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _check_tokenizer(found: GGUFFile) -> None:
    kind, tokens = (found.values.get(f"tokenizer.ggml.{key}") for key in ("model", "tokens"))
    if not kind or not tokens:
        raise TokenizerError(
            f"{found.path} holds no tokenizer. Take a file that llama.cpp's converter wrote from a "
            "whole model folder."
        )
    if kind not in TOKENIZERS:
        raise TokenizerError(
            f"{found.path} has a tokenizer of the kind {kind!r}; {_or(TOKENIZERS)} can be rebuilt. "
            "Take the model's safetensors folder instead."
        )
    if kind == "gpt2" and not found.values.get("tokenizer.ggml.merges"):
        raise TokenizerError(
            f"{found.path} holds tokens and no merges, so texts cannot be cut as the model learned "
            "them. Convert the model again."
        )


# The folder ---------------------------------------------------------------------------------------


def _check_folder(folder: Path, overwrite: bool) -> None:
    models.check_replaceable(folder)
    if not overwrite and folder.exists() and any(folder.iterdir()):
        raise FolderInUseError(
            f"{folder} holds a model, and it stays as it is. Give another folder, or say that it "
            "is to be replaced (--overwrite)."
        )


def _check_room(found: GGUFFile, folder: Path, dtype: torch.dtype) -> None:
    """Room on the disk and in memory, before anything is done."""
    need = found.parameters * dtype.itemsize + ROOM
    place = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(place).free
    halves = " --dtype bfloat16 takes half of it." if dtype is torch.float32 else ""
    if need > free:
        raise CheckpointError(
            f"the model takes {memory.size(need)} in {folder} as {_name(dtype)}, and "
            f"{memory.size(free)} are free there. Make room, or give a folder on another disk."
            f"{halves}"
        )
    # The weights in their new type, the file, and the largest tensor twice in float32 while it is
    # unpacked: 823 MiB for SmolLM2-135M, which was measured to take 766.
    held = found.parameters * dtype.itemsize + 8 * max(found.sizes.values())
    held += found.path.stat().st_size
    free = memory.free_memory("cpu")
    if held > free:
        raise ModelTooLargeError(
            f"{found.path} has {found.parameters:,} weights, which take {memory.size(held)} of "
            f"memory to unpack as {_name(dtype)}, and {memory.size(free)} are free. Free some, or "
            f"take a smaller model.{halves}"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# The tokenizer ------------------------------------------------------------------------------------


def _tokenizer(found: GGUFFile) -> tuple[PreTrainedTokenizerFast, list[str]]:
    """The tokenizer, and how it may differ from the one that the model was trained with."""
    values = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in found.values.items()
        if key.startswith("tokenizer.ggml.")
    }
    try:
        with _bars(False):
            rebuilt: Any = PreTrainedTokenizerFast.from_pretrained(
                str(found.path.parent), gguf_file=found.path.name
            )
    except Exception as error:  # of many kinds: a merge of tokens that are not there, say
        raise TokenizerError(
            f"the tokenizer in {found.path} cannot be rebuilt ({_line(error)}). Take the model's "
            "safetensors folder instead."
        ) from error
    tokens = values["tokens"]
    backend = _of_the_file(rebuilt.backend_tokenizer, len(tokens))
    rule = values.get("pre", "default")
    if values["model"] == "gpt2":
        _cut_as(backend, rule)
    named = {
        name: tokens[values[key]]
        for name, key in {
            "bos_token": "bos_token_id",
            "eos_token": "eos_token_id",
            "unk_token": "unknown_token_id",
            "pad_token": "padding_token_id",
        }.items()
        if 0 <= values.get(key, -1) < len(tokens)
    }
    bos = named.get("bos_token")
    if bos and values.get("add_bos_token", values["model"] == "llama"):
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    else:
        backend.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **named)
    tokenizer.chat_template = found.template
    return tokenizer, list(_lost_texts(found, tokenizer, rule))


def _of_the_file(backend: Tokenizer, tokens: int) -> Tokenizer:
    """Without tokens that the file does not have: transformers adds <|endoftext|>, or <s>."""
    state = json.loads(backend.to_str())
    state["added_tokens"] = [one for one in state["added_tokens"] if one["id"] < tokens]
    return Tokenizer.from_str(json.dumps(state))


def _cut_as(backend: Tokenizer, rule: str) -> None:
    """Cut texts into words by the rule that a file names, where transformers does not.

    SmolLM's tokenizer takes digits apart first; Qwen2's has a pattern of its own, and composes
    letters with their accents.
    """
    if rule == "smollm":
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    if rule == "qwen2":
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )


def _lost_texts(found: GGUFFile, tokenizer: Any, rule: str) -> Iterator[str]:
    backend = tokenizer.backend_tokenizer
    if found.values["tokenizer.ggml.model"] == "llama":
        yield (
            "the tokenizer was rebuilt from its pieces and scores; how SentencePiece prepared "
            "texts (normalisation) is not in a GGUF file"
        )
    elif rule not in GPT2_RULES and isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        yield (
            f"the rule {rule!r}, by which texts are cut into words, is not known here, and GPT-2's "
            "stands in: some texts may become other tokens than those the model was trained on"
        )
    tokens = found.values["tokenizer.ggml.tokens"]
    own = tokenizer.convert_ids_to_tokens(list(range(len(tokens))))
    other = sum(a != b for a, b in zip(own, tokens, strict=True))
    if other:
        yield f"{other} of {len(tokens)} tokens are written otherwise than in the file"
    if found.template is None:
        yield "there is no chat template in the file: prompts are texts to go on with"
    if any(key.startswith("tokenizer.chat_template.") for key in found.values):
        yield "the file has several chat templates; the default one was kept"


# The weights --------------------------------------------------------------------------------------


def _model(found: GGUFFile, tokenizer: Any, dtype: torch.dtype) -> Any:
    """The model with the file's weights, as one that was never quantised."""
    loader: Any = transformers.AutoModelForCausalLM
    try:
        with _bars(sys.stderr.isatty()):
            loaded, told = loader.from_pretrained(
                str(found.path.parent),
                gguf_file=found.path.name,
                dtype=dtype,
                output_loading_info=True,
            )
    except Exception as error:  # sizes that do not fit the settings, say
        raise ModelFileError(
            f"the weights in {found.path} do not make a {found.architecture} model "
            f"({_line(error)}). Fetch the file again, or convert the model again."
        ) from error
    wanted = models.KINDS[found.architecture]
    if told["missing_keys"] or not type(loaded).__name__.startswith(wanted):
        raise UnsupportedModelError(
            f"transformers {transformers.__version__} made a {type(loaded).__name__} of "
            f"{found.path}, which lacks {_some(set(told['missing_keys'])) or 'nothing'}; a whole "
            f"{wanted}ForCausalLM was expected. Install the transformers of constraints.txt."
        )
    weights = loaded.state_dict()
    if broken := {name for name, value in weights.items() if not value.isfinite().all()}:
        raise ModelFileError(
            f"{found.path} holds weights that are no finite numbers, in {_some(broken)}: it is "
            "damaged, or was quantised from a broken model. Fetch it again."
        )
    # transformers refuses to save a model that it knows to come from a GGUF file.
    settings = loaded.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(name, None)
    settings |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in _SPECIAL}
    with torch.device("meta"):
        model = type(loaded)(type(loaded.config)(**settings))
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    model.config.dtype = dtype
    turn = found.values.get("tokenizer.ggml.eot_token_id")
    ends = {tokenizer.eos_token_id, turn} - {None}
    for name in _SPECIAL:
        setattr(model.generation_config, f"{name}_token_id", settings[f"{name}_token_id"])
    if len(ends) > 1:
        model.generation_config.eos_token_id = sorted(ends)
    return model


_SPECIAL = ("bos", "eos", "pad")


def _lost_weights(found: GGUFFile, dtype: str) -> Iterator[str]:
    weights: Counter[str] = Counter()
    for name, kind in found.types.items():
        weights[kind] += found.sizes[name]
    exact = {"F32", "F16", "BF16", "F64"}
    for kind, count in weights.most_common():
        if kind not in exact:
            share = math.floor(1000 * count / found.parameters) / 10
            yield (
                f"{share} % of the weights were rounded to {kind} when the file was made, "
                f"{found.bits[kind]:g} bits each with their scales; the original ones are not in it"
            )
    if dtype == "bfloat16" and set(found.types.values()) != {"BF16"}:
        yield "weights were written as bfloat16, which rounds each by at most 1 part in 256"
    if dtype == "float32" and "F64" in weights:
        yield "weights of 64 bits were written as float32"


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """transformers draws bars and says what it chose; on a terminal the bars are worth having."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of packed weights, which are not used here
    try:
        if shown:
            yield
        else:
            with models.quiet(), redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.set_verbosity(verbosity)
