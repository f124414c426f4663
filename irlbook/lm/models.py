"""Small causal language models, and any other by name or folder. Safetensors only, no remote code.

The book's own model is an ordinary transformers model with a small configuration, so that whatever
is learned here works unchanged on a large one.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging

from irlbook.data.files import umask
from irlbook.errors import (
    CheckpointError,
    FolderInUseError,
    MissingDependencyError,
    ModelNotFoundError,
    TokenizerError,
    UnsafeWeightsError,
    UnsupportedModelError,
    UnusedWeightsWarning,
)
from irlbook.lm.memory import check_room
from irlbook.lm.tokenization import end_id, turn_ids

__all__ = [
    "CAUSAL_HEADS",
    "GENERIC_TOKENIZERS",
    "KINDS",
    "MODEL_FILES",
    "MOST_LAYERS",
    "PICKLES",
    "REWARD_HEADS",
    "adapter_task",
    "add_lora",
    "check_fit",
    "check_replaceable",
    "count_parameters",
    "give_pad",
    "load_lm",
    "load_reward_model",
    "load_tokenizer",
    "quiet",
    "remove_leftovers",
    "save",
    "tiny_lm",
]

KINDS = {"llama": "Llama", "qwen2": "Qwen2"}  # classes of transformers; dear to import, so late
CAUSAL_HEADS = ("ForCausalLM", "LMHeadModel")
REWARD_HEADS = ("ForSequenceClassification",)
NEW_HEAD, OLD_HEADS = ("score.",), ("lm_head.", "embed_out.")
GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
MODEL_FILES = (".json", ".safetensors", ".jinja", ".txt", ".model", ".md")
MOST_LAYERS = 10_000
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def tiny_lm(
    tokenizer: PreTrainedTokenizerBase | int,
    kind: Literal["llama", "qwen2"] = "llama",
    *,
    hidden: int = 96,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int | None = None,
    context: int = 512,
    tied: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> transformers.PreTrainedModel:
    """An untrained causal model; with the defaults and 330 tokens, 253 k parameters.

    Args:
        tokenizer: the tokenizer, or a vocabulary size.
        kv_heads: heads of keys and values; fewer than `heads` is grouped-query attention.
        tied: the head shares the embedding's weights.
        seed: of the weights; the global generator is left alone.

    Raises:
        UnsupportedModelError: an unknown kind, or heads that do not divide the width.
    """
    if kind not in KINDS:
        raise UnsupportedModelError(f"kind={kind!r} is unknown; choose from {sorted(KINDS)}.")
    kv_heads = heads if kv_heads is None else kv_heads
    if hidden % (2 * heads) or heads % kv_heads:
        raise UnsupportedModelError(
            f"hidden={hidden} must be a multiple of twice heads={heads} (positions turn pairs of "
            f"coordinates), and heads a multiple of kv_heads={kv_heads}."
        )
    names = ("pad_token_id", "bos_token_id", "eos_token_id")
    special = {name: getattr(tokenizer, name, None) for name in names}
    config_class = getattr(transformers, f"{KINDS[kind]}Config")
    model_class = getattr(transformers, f"{KINDS[kind]}ForCausalLM")
    config = config_class(
        vocab_size=tokenizer if isinstance(tokenizer, int) else len(tokenizer),
        hidden_size=hidden,
        intermediate_size=8 * hidden // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=context,
        tie_word_embeddings=tied,
        **special,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config).to(dtype)


def load_lm(
    name_or_path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    revision: str | None = None,
    offline: bool = False,
    more: int = 0,
) -> tuple[transformers.PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer, from a folder or by name.

    Only safetensors are opened, and no code that comes with a model is run. A folder that holds a
    LoRA adapter loads its base model and puts the adapter on it.

    Args:
        revision: a branch, tag or commit of a named model; give a commit to be reproducible.
        offline: look only at what was downloaded before.
        more: bytes a weight that the caller will need besides the weights, as 12 for gradients and
            AdamW's moments: what cannot fit is refused before it is loaded.

    Raises:
        ModelNotFoundError: nothing there, or it cannot be fetched.
        ModelTooLargeError: there is not the memory for it.
        UnsafeWeightsError: the weights are pickles.
        UnsupportedModelError: not a causal language model, or an architecture of its own code, or
            some of its weights are missing or of another size.
        TokenizerError: the tokenizer has more tokens than the model has embeddings.
        MissingDependencyError: an adapter, and peft is not installed.
    """
    source = _source(name_or_path)
    options = {"revision": revision, "local_files_only": offline}
    if isinstance(source, Path) and adapter_task(source) is not None:
        return _load_adapter(source, device, dtype, offline)
    config = _check_head(source, CAUSAL_HEADS, "a causal language model", options)
    loader = transformers.AutoModelForCausalLM
    _check_memory(loader, config, source, device, dtype, more)
    model = _load_weights(loader, source, {"dtype": dtype, **options})
    tokenizer = load_tokenizer(source, revision=revision, offline=offline)
    check_fit(model, tokenizer)
    return model.to(device).eval(), tokenizer


def load_reward_model(
    name_or_path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    revision: str | None = None,
    offline: bool = False,
    new_head: bool = False,
    seed: int = 0,
    more: int = 0,
) -> tuple[transformers.PreTrainedModel, PreTrainedTokenizerBase]:
    """A sequence classifier with one output, and its tokenizer.

    Args:
        new_head: start a reward model from a language model, with a fresh head drawn from `seed`.
            If pad is the end token, or there is none, another special token becomes pad, a new one
            if need be: the head of transformers would take the end for padding and read the token
            before it.
        more: as in :func:`load_lm`.

    Raises:
        As :func:`load_lm`; UnsupportedModelError also when a language model is given without
        `new_head`: its head would be random, and its scores noise. With `new_head` a head of
        another size is replaced.
    """
    source = _source(name_or_path)
    options = {"revision": revision, "local_files_only": offline}
    if isinstance(source, Path) and adapter_task(source) is not None:
        return _load_reward_adapter(source, device, dtype, offline)
    heads = CAUSAL_HEADS + REWARD_HEADS if new_head else REWARD_HEADS
    wanted = "a reward model (new_head=True starts one from a language model)"
    if new_head:
        wanted = "a reward model or a causal language model to start one from"
    config = _check_head(source, heads, wanted, options)
    if not new_head and config.num_labels != 1:
        raise UnsupportedModelError(
            f"{source} has {config.num_labels} outputs; a reward model has one."
        )
    loader = transformers.AutoModelForSequenceClassification
    _check_memory(loader, config, source, device, dtype, more)
    tokenizer = load_tokenizer(source, revision=revision, offline=offline)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _load_weights(
            loader,
            source,
            {"dtype": dtype, "num_labels": 1, **options},
            new_head,
        )
    # The transformers head reads the last token that is not a pad; None refuses batches.
    if new_head:
        give_pad(tokenizer, model, _listed_ends(source, model.config, options))
    if new_head or model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    check_fit(model, tokenizer)
    return model.to(device).eval(), tokenizer


def load_tokenizer(
    name_or_path: str | Path, *, revision: str | None = None, offline: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, from a folder or by name.

    Raises:
        TokenizerError: the folder holds none.
    """
    source = _source(name_or_path)
    if isinstance(source, Path):
        kinds = ("tokenizer*", "vocab*", "*.model")
        if not any(file for kind in kinds for file in source.glob(kind)):
            raise TokenizerError(
                f"{source} holds no tokenizer. Save it beside the model: "
                "tokenizer.save_pretrained(folder)."
            )
    options = {"revision": revision, "local_files_only": offline}
    return _from_pretrained(_tokenizer_loader(source), source, options)


def check_fit(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that each token of the tokenizer has an embedding.

    Raises:
        TokenizerError: some have none.
    """
    tokens, rows = len(tokenizer), model.get_input_embeddings().num_embeddings
    if tokens > rows:
        raise TokenizerError(
            f"the tokenizer has {tokens} tokens and the model {rows} embeddings: they do not "
            "belong together. Load both from one place, or call "
            "model.resize_token_embeddings(len(tokenizer)) if you added tokens on purpose."
        )


def save(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write model and tokenizer as safetensors, all or nothing.

    They are written beside `folder` first and then take its place as a whole. A full disk or a
    kill leaves what was there before. What a kill left beside it, the next call removes.

    Args:
        card: where the model comes from; it is written as card.json.

    Raises:
        FolderInUseError: `folder` holds something besides a saved model.
        CheckpointError: a full disk, or a folder that cannot be written.
    """
    folder = Path(folder)
    check_replaceable(folder)
    new = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        prefix = f"{_aside(folder)}{os.getpid()}."
        new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
        with quiet():
            model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        if card is not None:
            text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
            (new / "card.json").write_text(text, encoding="utf-8")
        for path, most in [(new, 0o777), *((file, 0o666) for file in new.iterdir())]:
            path.chmod(most & ~umask())  # mkdtemp and safetensors make theirs private
        if folder.exists():
            backup = _backup(folder)
            shutil.rmtree(backup, ignore_errors=True)
            os.rename(folder, backup)
        os.rename(new, folder)
        shutil.rmtree(_backup(folder), ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the model could not be saved in {folder}: {error}. What was there before still is. "
            "Make room, or give a folder that can be written."
        ) from error
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)
    return folder


def remove_leftovers(folder: Path) -> None:
    """Remove what calls of `save` for this folder left beside it when they were killed.

    Only what a process of this machine left, and only if there is no such process any more.
    """
    for left in folder.parent.glob(f"{glob.escape(_aside(folder))}*.*"):
        process = left.name.rsplit(".", 2)[1]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def _aside(folder: Path) -> str:
    """How the name of a folder begins in which this machine writes a model; a process follows."""
    return f".{folder.name}.new.{platform.node()}."


def check_replaceable(folder: Path) -> None:
    """A model takes the place of the whole folder, so nothing else may lie in it.

    Raises:
        FolderInUseError: something does.
    """
    if not folder.exists():
        return
    files = list(folder.iterdir()) if folder.is_dir() else [folder]
    foreign = [file.name for file in files if file.is_dir() or file.suffix not in MODEL_FILES]
    known = {"config.json", "adapter_config.json"} & {file.name for file in files}
    if not folder.is_dir() or foreign or (files and not known):
        held = ", ".join(sorted(foreign)[:5]) or "no model"
        raise FolderInUseError(
            f"{folder} exists and is not just a saved model (it holds {held}); it stays as it is. "
            "Give another folder."
        )


def add_lora(
    model: transformers.PreTrainedModel,
    *,
    rank: int = 8,
    alpha: int = 16,
    targets: str | Sequence[str] = "all-linear",
    task: str = "CAUSAL_LM",
    seed: int = 0,
) -> Any:
    """Freeze a model and put a trainable low-rank adapter on its linear layers (through peft).

    Raises:
        MissingDependencyError: peft is not installed.
        UnsupportedModelError: the model has an adapter; a second one could not be loaded again.
    """
    peft = _peft()
    if isinstance(model, peft.PeftModel):
        raise UnsupportedModelError(
            "the model has an adapter already. Train that one further (without --lora), or save "
            "the model merged first: save(model.merge_and_unload(), tokenizer, folder)."
        )
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type=task,
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config)


def count_parameters(model: nn.Module, *, trainable: bool = False) -> int:
    """Parameters of a model, shared ones once; only those that are trained, if asked."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def _backup(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.old"


def give_pad(tokenizer: PreTrainedTokenizerBase, model: Any, stops: set[int]) -> None:
    """Make pad a special token that ends nothing: a head would take the end for padding.

    A token that is called pad comes first, then one that no chat template writes, then any. Where
    the end is the only special token (GPT-2, Pythia), a new one is added; its embedding is never
    read, since pads are masked.

    Args:
        stops: all tokens that may end a response.
    """
    ends = {tokenizer.eos_token_id, end_id(tokenizer)}
    if tokenizer.pad_token_id not in ends | {None}:
        return
    rows = model.get_input_embeddings().num_embeddings
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    free = (special | set(tokenizer.all_special_ids)) - ends - stops
    written = turn_ids(tokenizer) | {tokenizer.bos_token_id}

    def rank(token: int) -> tuple[bool, bool, int]:
        name = str(tokenizer.convert_ids_to_tokens(token))
        return "pad" not in name.lower(), token in written, token

    for token in sorted((token for token in free if token < rows), key=rank):
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(token)
        return
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)


def _listed_ends(source: Path | str, config: Any, options: dict) -> set[int]:
    """The end tokens that a model's settings list, those of its generation among them."""
    settings = [config]
    with suppress(ModelNotFoundError, UnsupportedModelError):  # not every model has the file
        settings.append(_from_pretrained(transformers.GenerationConfig, source, options))
    found: set[int] = set()
    for one in settings:
        listed = getattr(one, "eos_token_id", None)
        if listed is not None:
            found.update(listed if isinstance(listed, list | tuple) else [listed])
    return found


def _source(name_or_path: str | Path) -> Path | str:
    """A folder that exists, or a name; refuses folders with pickles only."""
    folder = Path(name_or_path)
    if folder.is_file() or (folder.suffix == ".gguf" and not folder.is_dir()):
        raise ModelNotFoundError(
            f"{folder} is a file, and a model is a folder. Turn a GGUF file into one: "
            f"irlbook models import {folder.name if folder.suffix == '.gguf' else 'FILE.gguf'} "
            "FOLDER"
        )
    if not folder.exists() and _backup(folder).is_dir():
        os.rename(_backup(folder), folder)  # a kill struck between the two renames of `save`
    if not folder.is_dir():
        looks_like_path = isinstance(name_or_path, Path) or str(name_or_path).startswith(
            (".", "/", "~")
        )
        if looks_like_path:
            raise ModelNotFoundError(
                f"there is no folder {folder}. Check the path, or give the name of a model."
            )
        return str(name_or_path)
    files = [file.name for file in folder.iterdir()]
    packed = sorted(name for name in files if name.endswith(".gguf"))
    if packed and not any(name.endswith(".safetensors") for name in files):
        raise ModelNotFoundError(
            f"{folder} holds a GGUF file and no safetensors. Turn it into a folder that does: "
            f"irlbook models import {folder / packed[0]} FOLDER"
        )
    pickles = [name for name in files if name.endswith(PICKLES) and name != "training_args.bin"]
    if pickles and not any(name.endswith(".safetensors") for name in files):
        raise UnsafeWeightsError(_pickle_message(f"{folder} ({', '.join(sorted(pickles))})"))
    return folder


def _pickle_message(what: str) -> str:
    return (
        f"the weights of {what} are not safetensors but pickles, which can run any code when they "
        "are opened. Ask for a safetensors copy, or convert them on a machine that you can lose: "
        "AutoModelForCausalLM.from_pretrained(folder, use_safetensors=False)"
        ".save_pretrained(new_folder)."
    )


def _check_head(source: Path | str, heads: Sequence[str], wanted: str, options: dict) -> Any:
    config = _from_pretrained(transformers.AutoConfig, source, options)
    names = getattr(config, "architectures", None) or []
    layers = getattr(config, "num_hidden_layers", 0)
    if isinstance(layers, int) and layers > MOST_LAYERS:  # to count their weights takes hours
        raise UnsupportedModelError(
            f"{source} says that it has {layers} layers; no model has more than {MOST_LAYERS}. Its "
            "config.json is damaged: fetch or save the model again."
        )
    if not any(name.endswith(tuple(heads)) for name in names):
        raise UnsupportedModelError(
            f"{source} is {', '.join(names) or 'of no stated architecture'}, not {wanted}."
        )
    return config


def _check_memory(
    loader: Any,
    config: Any,
    source: Path | str,
    device: torch.device | str,
    dtype: torch.dtype,
    more: int,
) -> None:
    """Refuse a model that does not fit, before its weights are read, or fetched."""
    try:
        with torch.device("meta"), quiet():  # its sizes, and no numbers
            empty = loader.from_config(config, trust_remote_code=False)
    except Exception:  # whatever it is, loading the weights will say it better
        return
    kinds = {"cpu", torch.device(device).type} & {"cpu", "cuda"}
    check_room(source, count_parameters(empty), dtype, kinds, more)


def _tokenizer_loader(source: Path | str) -> Any:
    """AutoTokenizer, save where a folder says that its tokenizer.json is all there is.

    Next to a Qwen2 model, AutoTokenizer takes any tokenizer for Qwen's own: it swaps the rule that
    splits words and adds a token.
    """
    if isinstance(source, Path) and (source / "tokenizer_config.json").is_file():
        name = _settings(source / "tokenizer_config.json").get("tokenizer_class")
        if name in GENERIC_TOKENIZERS and (source / "tokenizer.json").is_file():
            return PreTrainedTokenizerFast
    return transformers.AutoTokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and load reports (`_load_weights` reads those).

    And without what peft is told about names of transformers that it still uses.
    """
    shown = logging.is_progress_bar_enabled()
    reporter = logging.get_logger("transformers.modeling_utils")
    logging.disable_progress_bar()
    reporter.addFilter(_only_errors)  # type: ignore[arg-type]  # a filter: where a level is set, transformers says more
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            yield
    finally:
        reporter.removeFilter(_only_errors)  # type: ignore[arg-type]
        if shown:
            logging.enable_progress_bar()


def _only_errors(record: Any) -> bool:
    return record.levelno >= logging.ERROR


def _load_weights(loader: Any, source: Path | str, options: dict, new_head: bool = False) -> Any:
    """A model whose weights all come from `source`, save a head that is new on purpose.

    transformers fills what is missing with random numbers and prints a table. Here the table is
    kept for the cases that are wrong, and is an error or a warning.

    Raises:
        UnsupportedModelError: weights are missing, or have another size than the model's.

    Warns:
        UnusedWeightsWarning: the file holds weights that the model has no place for.
    """
    options = options | {"output_loading_info": True, "ignore_mismatched_sizes": True}
    model, found = _from_pretrained(loader, source, options)
    wrong = {f"{name} (missing)" for name in found["missing_keys"]}
    wrong |= {f"{name} ({a} for {b})" for name, a, b in found["mismatched_keys"]}
    wrong = {name for name in wrong if not (new_head and name.startswith(NEW_HEAD))}
    if wrong:
        raise UnsupportedModelError(
            f"the weights of {source} do not fill a {type(model).__name__}: {_some(wrong)}. The "
            "rest would be random numbers. Fetch or save the model again; config.json and "
            "weights must come from one model."
        )
    unused = set(found["unexpected_keys"])
    unused = {name for name in unused if not (new_head and name.startswith(OLD_HEADS))}
    if unused:
        warnings.warn(
            f"{source} holds weights that a {type(model).__name__} has no place for, and they are "
            f"left out: {_some(unused)}. If they are not the head of another task, config.json "
            "describes another model.",
            UnusedWeightsWarning,
            stacklevel=3,
        )
    return model


def _some(names: set[str], most: int = 4) -> str:
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _from_pretrained(loader: Any, source: Path | str, options: dict) -> Any:
    """`loader.from_pretrained` without pickles and remote code, its errors named."""
    weights = {"use_safetensors": True} if hasattr(loader, "_model_mapping") else {}
    try:
        with quiet():
            return loader.from_pretrained(source, trust_remote_code=False, **options, **weights)
    except ImportError as error:
        raise MissingDependencyError(f"loading {source} needs a package: {error}") from error
    except SafetensorError as error:
        raise ModelNotFoundError(
            f"the weights of {source} are cut off or damaged ({error}). Fetch or save them again."
        ) from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of any kind: what a damaged file leads transformers to
        text = " ".join(str(error).split()) or type(error).__name__
        if "safetensors" in text and weights:
            raise UnsafeWeightsError(_pickle_message(str(source))) from error
        if "trust_remote_code" in text or "custom code" in text:
            raise UnsupportedModelError(
                f"{source} brings code of its own, and code from a model is never run here. "
                "Use an architecture that transformers knows."
            ) from error
        if isinstance(error, OSError):
            raise ModelNotFoundError(
                f"{source} could not be loaded: it does not exist, is incomplete, or cannot be "
                "reached from here. Check the name; without a network, give a folder, or fetch "
                "it before (`hf download NAME`) and set HF_HOME to where it lies.\n"
                f"  said: {text[:300]}"
            ) from error
        if not isinstance(error, ValueError):  # 'KeyError: 3' says more than '3'
            text = f"{type(error).__name__}: {text}"
        raise UnsupportedModelError(
            f"{source} cannot be loaded here: {text[:600].rstrip('.')}. Give a folder that "
            "save_pretrained wrote, or a model of an architecture that this transformers knows."
        ) from error


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingDependencyError(
            'LoRA needs the package peft, which is not installed. Run: pip install "irlbook[lora]"'
        ) from error
    return peft


def adapter_task(source: Path | str) -> str | None:
    """CAUSAL_LM or SEQ_CLS where a folder holds a LoRA adapter of that kind; None elsewhere."""
    if not (isinstance(source, Path) and (source / "adapter_config.json").is_file()):
        return None
    return _settings(source / "adapter_config.json").get("task_type") or "CAUSAL_LM"


def _settings(path: Path) -> dict[str, Any]:
    """The object in a small file of JSON that comes with a model."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise UnsupportedModelError(
            f"{path} is damaged ({error}). Fetch or save the model again."
        ) from error
    return found


def _base_of(folder: Path) -> str:
    """The model that an adapter belongs to."""
    base = _settings(folder / "adapter_config.json").get("base_model_name_or_path")
    if not (isinstance(base, str) and base):
        raise UnsupportedModelError(
            f"{folder} is an adapter whose adapter_config.json does not name the model that it "
            "belongs to. Write its name or folder there, as base_model_name_or_path."
        )
    return base


def _with_adapter(peft: Any, model: Any, folder: Path, **options: Any) -> Any:
    """A model with the adapter of a folder on it, all of whose weights are there."""
    try:
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("error", "Found missing adapter keys")
            return peft.PeftModel.from_pretrained(model, folder, **options)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of any kind: what a damaged file leads peft to
        text = " ".join(str(error).split())[:600].rstrip(".")
        raise UnsupportedModelError(
            f"the adapter in {folder} cannot be put on its model ({type(error).__name__}: {text}). "
            "Fetch or save it again; it must belong to the model that adapter_config.json names."
        ) from error


def _load_adapter(
    folder: Path, device: torch.device | str, dtype: torch.dtype, offline: bool
) -> tuple[Any, PreTrainedTokenizerBase]:
    peft = _peft()
    if adapter_task(folder) != "CAUSAL_LM":
        raise UnsupportedModelError(
            f"{folder} is an adapter for {adapter_task(folder)}, not for a causal language model."
        )
    model, tokenizer = load_lm(_base_of(folder), device, dtype, offline=offline)
    model = _with_adapter(peft, model, folder, is_trainable=True)
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = load_tokenizer(folder)
    return model.to(device).eval(), tokenizer


def _load_reward_adapter(
    folder: Path, device: torch.device | str, dtype: torch.dtype, offline: bool
) -> tuple[Any, PreTrainedTokenizerBase]:
    """A reward model whose adapter, with its head, is merged into the base: a plain model."""
    peft = _peft()
    if adapter_task(folder) != "SEQ_CLS":
        raise UnsupportedModelError(
            f"{folder} is the adapter of a language model, not of a reward model. To start one "
            "from it, save it merged first: model, tokenizer = load_lm(folder); "
            "save(model.merge_and_unload(), tokenizer, new_folder)."
        )
    model, tokenizer = load_reward_model(
        _base_of(folder), device, dtype, offline=offline, new_head=True
    )
    model = _with_adapter(peft, model, folder).merge_and_unload()
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = load_tokenizer(folder)
        model.config.pad_token_id = tokenizer.pad_token_id
    return model.to(device).eval(), tokenizer
