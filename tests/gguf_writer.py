"""A model of transformers written as a GGUF file, as llama.cpp's converter writes one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def rotated(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp pairs neighbouring coordinates of a head where transformers pairs its halves."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def tensors(model: Any) -> dict[str, np.ndarray]:
    """{GGUF's name: weight}; a head that is the embedding is left out, as llama.cpp does."""
    config, found = model.config, {}
    for name, value in model.state_dict().items():
        stem, _, suffix = name.rpartition(".")
        if stem == "lm_head" and config.tie_word_embeddings:
            continue
        array = value.float().numpy()
        if stem in OUTER:
            found[f"{OUTER[stem]}.{suffix}"] = array
            continue
        layer, part = stem.removeprefix("model.layers.").split(".", 1)
        if config.model_type == "llama" and part[-6:] in ("q_proj", "k_proj"):
            keys = part.endswith("k_proj")
            array = rotated(
                array, config.num_key_value_heads if keys else config.num_attention_heads
            )
        found[f"blk.{layer}.{NAMES[part]}.{suffix}"] = array
    return found


def settings(config: Any) -> dict[str, Any]:
    """The keys of the architecture, without its name in front."""
    head = config.hidden_size // config.num_attention_heads
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "rope.dimension_count": head,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": 10000.0,
    }


def texts(tokenizer: Any, rule: str) -> dict[str, Any]:
    """The keys of a byte-level tokenizer."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids) | {
        i for i, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": rule,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if i in special else 1 for i in range(len(tokens))],
        "tokenizer.ggml.merges": [
            one if isinstance(one, str) else " ".join(one) for one in state["merges"]
        ],
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_token_id,
        "tokenizer.ggml.add_bos_token": tokenizer("").input_ids != [],
        "tokenizer.chat_template": tokenizer.chat_template,
    }


def write_gguf(
    path: Path,
    model: Any,
    tokenizer: Any,
    *,
    rule: str = "gpt-2",
    kind: str = "F32",
    architecture: str | None = None,
    keys: Mapping[str, Any] | None = None,
    change: Callable[[dict[str, np.ndarray]], Any] | None = None,
) -> Path:
    """Write the file.

    Args:
        rule: how llama.cpp calls the tokenizer's way to cut texts into words.
        kind: the type of the matrices; vectors stay in 32 bits.
        keys: other values of keys; None leaves the key out.
        change: is given the tensors, to change them.
    """
    architecture = architecture or model.config.model_type
    writer = gguf.GGUFWriter(path, architecture)
    values = {f"{architecture}.{key}": one for key, one in settings(model.config).items()}
    values |= texts(tokenizer, rule) | {"general.name": "tiny"} | dict(keys or {})
    for key, value in values.items():
        if value is not None:
            add(writer, key, value)
    weights = tensors(model)
    if change:
        change(weights)
    for name, array in weights.items():
        if array.ndim < 2 or kind == "F32" or array.dtype != np.float32:
            writer.add_tensor(name, np.ascontiguousarray(array))
            continue
        as_type = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quantize(array, as_type), raw_dtype=as_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def rounded(model: Any, kind: str) -> None:
    """Give a model the weights that come back from a quantised file, in place."""
    as_type = gguf.GGMLQuantizationType[kind]
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 2:
                packed = gguf.quantize(value.numpy(), as_type)
                value.copy_(torch.from_numpy(gguf.dequantize(packed, as_type)))
