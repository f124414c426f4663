"""Tiny random models of many architectures, and what each says of a response that stands alone."""

from __future__ import annotations

import torch
import transformers
from torch import Tensor

from irlbook.lm.trees import Group

VOCABULARY = 64
LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SHORT = {key: LLAMA[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers")}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
ALIBI = {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}
HEAD = {"head_dim": 8}
WINDOW = {"sliding_window": 8}
DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
LOCAL = {"attention_types": [[["global", "local"], 1]], "window_size": 8}

PACKED = {  # a mask and positions are all that mixes tokens
    "Llama": ("LlamaConfig", LLAMA),
    "Qwen2": ("Qwen2Config", LLAMA),
    "Qwen3": ("Qwen3Config", LLAMA | HEAD),
    "GPT2LMHeadModel": ("GPT2Config", GPT2),
    "GPTNeoX": ("GPTNeoXConfig", LLAMA),
    "GPTJ": ("GPTJConfig", GPT2 | {"rotary_dim": 4}),
    "Gemma": ("GemmaConfig", LLAMA | HEAD),
    "Gemma2": ("Gemma2Config", LLAMA | HEAD | {"sliding_window": 64}),
    "Mixtral": ("MixtralConfig", LLAMA | {"num_local_experts": 4}),
    "OPT": (
        "OPTConfig",
        SHORT | {"ffn_dim": 48, "num_attention_heads": 4, "word_embed_proj_dim": 32},
    ),
    "Phi": ("PhiConfig", LLAMA),
    "Cohere": ("CohereConfig", LLAMA),
    "Granite": ("GraniteConfig", LLAMA | {"logits_scaling": 4.0}),
}
PLAIN = {  # windows, recurrent layers, convolutions, biases by distance
    "Mistral": ("MistralConfig", LLAMA | WINDOW),
    "Gemma2, narrow": ("Gemma2Config", LLAMA | HEAD | WINDOW),
    "Gemma3": (
        "Gemma3TextConfig",
        LLAMA | HEAD | WINDOW | {"layer_types": ["sliding_attention", "full_attention"]},
    ),
    "GPTNeo": (
        "GPTNeoConfig",
        LOCAL | {"vocab_size": VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 4},
    ),
    "Llama4": (
        "Llama4TextConfig",
        LLAMA
        | HEAD
        | {"attention_chunk_size": 8, "num_local_experts": 2, "intermediate_size_mlp": 48},
    ),
    "FalconH1": (
        "FalconH1Config",
        LLAMA | MAMBA | {"mamba_n_heads": 4, "mamba_d_ssm": 32},
    ),
    "Lfm2": ("Lfm2Config", LLAMA | {"layer_types": ["conv", "full_attention"]}),
    "Qwen3Next": ("Qwen3NextConfig", LLAMA | HEAD | DELTA | EXPERTS),
    "Qwen3_5": ("Qwen3_5TextConfig", LLAMA | DELTA | {"head_dim": 16}),
    "Mamba": ("MambaConfig", SHORT | {"state_size": 8}),
    "Mamba2": (
        "Mamba2Config",
        SHORT | {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8},
    ),
    "Jamba": (
        "JambaConfig",
        LLAMA | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8},
    ),
    "Bamba": ("BambaConfig", LLAMA | MAMBA | {"attn_layer_indices": [1], "mamba_chunk_size": 8}),
    "RecurrentGemma": (
        "RecurrentGemmaConfig",
        LLAMA
        | {"lru_width": 32, "attention_window_size": 8, "block_types": ["recurrent", "attention"]},
    ),
    "Bloom": ("BloomConfig", ALIBI),
    "Mpt": (
        "MptConfig",
        {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128},
    ),
    "Falcon": ("FalconConfig", SHORT | {"num_attention_heads": 4, "alibi": True}),
    "BertLMHeadModel": ("BertConfig", LLAMA | {"is_decoder": True}),
}
REFUSED = {  # each token sees those that follow
    "XLNetLMHeadModel": (
        "XLNetConfig",
        {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
    ),
    "BertLMHeadModel, both ways": ("BertConfig", LLAMA),
}
ALL = PACKED | PLAIN | REFUSED


def build(name: str, task: str = "ForCausalLM", scale: float = 5.0, seed: int = 0, **options):
    """A random model; its matrices are scaled up, so that tokens hear of one another."""
    config, own = ALL[name]
    kind = name.partition(",")[0]
    kind = kind if kind.endswith("Model") else kind + task
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, kind)(getattr(transformers, config)(**own | options))
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(scale)
    return model.float().eval()


def exact_norms(model):
    """Norms in float64, in place: the RMS norms of transformers compute in float32 always."""
    for module in model.modules():
        for name, norm in module.named_children():
            if type(norm).__name__.endswith("RMSNorm"):
                double = torch.nn.RMSNorm(norm.weight.shape, norm.variance_epsilon).double()
                double.weight = norm.weight
                setattr(module, name, double)
    return model


def alone(model, groups: list[Group]) -> Tensor:
    """(N,) log-probabilities of the response tokens; each response by itself, without a pad."""
    found = []
    for prompt, responses in groups:
        for response in responses:
            logits = model(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits
            steps = logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
            found.append(steps.gather(1, torch.tensor(response)[:, None])[:, 0])
    return torch.cat(found)


def groups_of(*shapes: tuple[int, ...], seed: int = 1) -> list[Group]:
    """Random groups: for each shape a prompt of so many tokens, then its responses."""
    draw = torch.Generator().manual_seed(seed)
    groups: list[Group] = []
    for sizes in shapes:
        prompt, *responses = (
            torch.randint(3, VOCABULARY, (n,), generator=draw).tolist() for n in sizes
        )
        groups.append((prompt, responses))
    return groups
