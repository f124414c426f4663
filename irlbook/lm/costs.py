"""What a step costs before it is run: bytes and floating-point operations, by arithmetic.

The models are those of Llama's and Qwen2's kind: RMS norms, rotary positions, grouped keys and
values, a gated feed-forward layer. Notation: L layers, H hidden, a = heads x head size,
k = key-value heads x head size, I intermediate, V vocabulary, P parameters.

`irlbook.posttraining.cost_study` measures the same quantities, and chapter 22 compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from irlbook.errors import InvalidHyperparameterError, UnsupportedModelError

__all__ = [
    "ADAPTED",
    "Accelerator",
    "Architecture",
    "GPUS",
    "Lengths",
    "Memory",
    "Precision",
    "adapter_parameters",
    "cache_bytes",
    "decoding_seconds",
    "forward_flops",
    "training_flops",
    "training_memory",
    "training_seconds",
]

Lengths = tuple[float, Sequence[float]]
"""Tokens of a prompt, and of each of its responses: the lengths of a `trees.Group`."""

ADAPTED = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class Architecture:
    """The sizes of a decoder; `tied`: head and embedding are one matrix."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool = False
    bias: bool = False  # of queries, keys and values, as in Qwen2

    @classmethod
    def of(cls, config: Any) -> Architecture:
        """From the configuration of a transformers Llama or Qwen2.

        Raises:
            UnsupportedModelError: another kind of model.
        """
        if getattr(config, "model_type", None) not in ("llama", "qwen2"):
            raise UnsupportedModelError(
                f"{getattr(config, 'model_type', config)!r} is not Llama or Qwen2, and its layers "
                "are not known here. Measure a step instead."
            )
        heads = config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=heads,
            kv_heads=config.num_key_value_heads,
            head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
            intermediate=config.intermediate_size,
            vocabulary=config.vocab_size,
            tied=config.tie_word_embeddings,
            bias=config.model_type == "qwen2",
        )

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of the matrices of one layer."""
        wide, narrow = self.heads * self.head_size, self.kv_heads * self.head_size
        h, i = self.hidden, self.intermediate
        return {
            "q": (h, wide),
            "k": (h, narrow),
            "v": (h, narrow),
            "o": (wide, h),
            "gate": (h, i),
            "up": (h, i),
            "down": (i, h),
        }

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        bias = (self.heads + 2 * self.kv_heads) * self.head_size if self.bias else 0
        return sum(a * b for a, b in self.matrices.values()) + bias + 2 * self.hidden

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of the head, which has as many."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """P."""
        return self.layers * self.layer + self.hidden + self.embedding * (1 if self.tied else 2)


@dataclass(frozen=True)
class Precision:
    """Bytes per number. The default computes in float32 with AdamW."""

    weight: float = 4
    gradient: float = 4
    optimiser: float = 8  # two moments
    activation: float = 4
    logit: float = 4

    @classmethod
    def mixed(cls) -> Precision:
        """bfloat16 weights and gradients, float32 master weights and moments: 16 per parameter."""
        return cls(weight=2, gradient=2, optimiser=12, activation=2)


@dataclass(frozen=True)
class Memory:
    """Bytes in one process.

    Attributes:
        activations: what the layers keep for the backward pass.
        head: the same for logits and their loss.
        again: what one layer keeps that is computed again, where layers are checkpointed.
    """

    weights: float
    gradients: float
    optimiser: float
    activations: float
    head: float
    again: float = 0.0

    @property
    def peak(self) -> float:
        """The larger of two moments: before the backward pass, when all activations are kept, and
        after it, when all gradients are there. Where layers are checkpointed, the last of them has
        just been computed again at the first moment, and the first of them at the second; the
        logits are gone by then.

        This holds for a step of one micro-batch; see `accumulated`."""
        first = self.activations + max(self.head, self.again)
        return self.weights + self.optimiser + max(first, self.again + self.gradients)

    @property
    def accumulated(self) -> float:
        """The peak with gradient accumulation: the gradients of the first micro-batch stay while
        the second has its activations. Where layers are checkpointed, the logits are gone when the
        last of them is computed again, so the larger of the two counts."""
        states = self.weights + self.optimiser + self.gradients
        return states + self.activations + max(self.head, self.again)

    @property
    def total(self) -> float:
        """Everything at once, which neither `peak` nor `accumulated` exceeds."""
        return sum(getattr(self, field.name) for field in fields(self))


def adapter_parameters(
    architecture: Architecture, rank: int, targets: Sequence[str] = ADAPTED
) -> int:
    """Parameters of a LoRA adapter: rank x (inputs + outputs) of each matrix (Hu et al. 2021).

    Raises:
        InvalidHyperparameterError: a matrix that there is not, or a rank below 1.
    """
    if rank < 1 or not set(targets) <= set(ADAPTED):
        raise InvalidHyperparameterError(
            f"rank {rank} and targets {list(targets)}: give a rank from 1 and some of {ADAPTED}."
        )
    sizes = architecture.matrices
    return architecture.layers * sum(rank * sum(sizes[name]) for name in targets)


def training_memory(
    architecture: Architecture,
    tokens: float,
    predicted: float,
    precision: Precision | None = None,
    *,
    rank: int | None = None,
    processes: int = 1,
    stage: Literal[0, 1, 2, 3] = 0,
    checkpointing: bool = False,
) -> Memory:
    """Bytes of one training step of one micro-batch.

    A layer keeps for each token: input, normalised input and output of its two norms (6 H),
    queries, keys, values (repeated for each head), the attention's output, and a copy of it (5 a),
    and four of the feed-forward layer (4 I). The head keeps the log-probabilities, and their
    gradient and that of the logits stand beside them when the backward pass begins (3 V).

    Args:
        tokens: computed at once, without pads.
        predicted: of them, those whose next token enters the loss.
        rank: of a LoRA adapter; then only its weights have gradients and moments.
        processes: over which the states are split; each has its own tokens.
        stage: of ZeRO (Rajbhandari et al. 2020): 1 splits the optimiser's states, 2 gradients, too,
            3 weights, too, which is FSDP. One layer of whole weights is counted for stage 3.
        checkpointing: only each layer's input is kept, and one layer is computed again at a time.

    Raises:
        InvalidHyperparameterError.
    """
    if not (0 <= predicted <= tokens and processes >= 1 and stage in (0, 1, 2, 3)):
        raise InvalidHyperparameterError(
            f"predicted {predicted} of tokens {tokens}, processes {processes}, stage {stage}: "
            "needs 0 <= predicted <= tokens, processes from 1, and a stage from 0 to 3."
        )
    c, p = architecture, precision or Precision()
    adapter = 0 if rank is None else adapter_parameters(c, rank)
    trained = c.parameters if rank is None else adapter

    def share(from_stage: int) -> float:
        return 1 / processes if stage >= from_stage else 1.0

    gathered = c.layer * p.weight if stage == 3 and processes > 1 else 0.0
    kept = 6 * c.hidden + 5 * c.heads * c.head_size + 4 * c.intermediate
    per_token = c.layers * (c.hidden if checkpointing else kept)
    return Memory(
        weights=(c.parameters + adapter) * p.weight * share(3) + gathered,
        gradients=trained * p.gradient * share(2),
        optimiser=trained * p.optimiser * share(1),
        activations=tokens * (per_token + 3 * c.hidden) * p.activation,
        head=3 * predicted * c.vocabulary * p.logit,
        again=tokens * kept * p.activation if checkpointing else 0.0,
    )


def cache_bytes(architecture: Architecture, tokens: float, number: float = 2) -> float:
    """Bytes of the keys and values of so many tokens: 2 L k each.

    Args:
        number: bytes per number.
    """
    c = architecture
    return 2 * c.layers * c.kv_heads * c.head_size * tokens * number


def forward_flops(architecture: Architecture, groups: Sequence[Lengths]) -> float:
    """Floating-point operations of one pass over groups whose prompts are computed once.

    2 for each weight of a layer and token, 2 V H for each response token, and 4 L a for each pair
    of a token and one that it may see (Kaplan et al. 2020, without embeddings).
    """
    c = architecture
    found = 0.0
    for prompt, responses in groups:
        tokens = prompt + sum(responses)
        pairs = prompt**2 / 2 + sum(n * prompt + n * n / 2 for n in responses)
        found += 2 * c.layers * c.layer * tokens + 2 * c.embedding * sum(responses)
        found += 4 * c.layers * c.heads * c.head_size * pairs
    return found


def training_flops(
    architecture: Architecture,
    groups: Sequence[Lengths],
    *,
    rank: int | None = None,
    checkpointing: bool = False,
) -> float:
    """Forwards and backwards: three passes, of which an adapter saves most of the third.

    Of the two passes backwards one gives the gradients of inputs and one those of weights. Frozen
    weights need no gradient; scores and values of attention are products of activations, which
    need both. In the first layer no adapter stands before queries, keys and values, so the
    gradients of their inputs are left out, too; not with checkpointing, for which transformers asks
    for these gradients.

    Args:
        rank: of a LoRA adapter on all of `ADAPTED`; None trains all weights.
        checkpointing: the layers are computed again, all but the last product of each, whose
            result no gradient needs.

    Raises:
        InvalidHyperparameterError: a rank below 1.
    """
    c = architecture
    tokens = sum(prompt + sum(responses) for prompt, responses in groups)
    once = forward_flops(c, groups)
    head = 2 * c.embedding * sum(sum(responses) for _, responses in groups)
    last_in, last_out = c.matrices["down"]
    if rank is None:
        again = once - head - 2 * c.layers * last_in * last_out * tokens
        return 3 * once + (again if checkpointing else 0)
    thin = 2 * adapter_parameters(c, rank) * tokens
    weights = 2 * c.layers * c.layer * tokens + head  # the products with frozen matrices
    first = [c.matrices[name] for name in ("q", "k", "v")]
    spared = 0 if checkpointing else 2 * tokens * sum(a * b + rank * a for a, b in first)
    again = once - head + thin - 2 * c.layers * rank * last_out * tokens
    return 3 * (once + thin) - weights - spared + (again if checkpointing else 0)


@dataclass(frozen=True)
class Accelerator:
    """A processor, by its data sheet: dense operations per second in 16 bits, bytes per second of
    its memory, and how many bytes it has."""

    flops: float
    bandwidth: float
    memory: float


GPUS: Mapping[str, Accelerator] = {
    "RTX 4090": Accelerator(165e12, 1.008e12, 24e9),  # Ada white paper: FP16, FP32 accumulate
    "L4": Accelerator(121e12, 0.3e12, 24e9),  # L4 data sheet: half of the figure with sparsity
    "A100 80GB": Accelerator(312e12, 2.039e12, 80e9),  # A100 data sheet, the SXM module
    "H100 SXM": Accelerator(989e12, 3.35e12, 80e9),  # H100 data sheet: half of that with sparsity
    "H200": Accelerator(989e12, 4.8e12, 141e9),  # H200 data sheet, SXM: half of that with sparsity
}
"""Figures of NVIDIA's data sheets, for 16 bits and without sparsity. None was measured here."""


def training_seconds(flops: float, processor: Accelerator, utilisation: float = 0.4) -> float:
    """Seconds at a share of the processor's peak, without communication.

    Args:
        utilisation: the share. The default is an assumption: measure yours.

    Raises:
        InvalidHyperparameterError: a share outside (0, 1].
    """
    return flops / (processor.flops * _checked(utilisation))


def decoding_seconds(
    architecture: Architecture,
    prompt: float,
    response: int,
    rows: float,
    processor: Accelerator,
    *,
    number: float = 2,
    utilisation: float = 0.7,
) -> float:
    """Seconds to write `response` tokens in each of `rows` rows at once.

    Each step reads all weights once, and the keys and values of every row; it takes as long as
    these reads or as its operations, whichever is more (the roofline of Williams et al. 2009).

    Args:
        prompt: tokens before the response. number: bytes per number.
        utilisation: share of the peak that is reached; the default is an assumption.
    """
    c, share = architecture, _checked(utilisation)
    operations = rows * 2 * (c.layers * c.layer + c.embedding)
    weights = (c.parameters - (0 if c.tied else c.embedding)) * number  # one row of the embedding
    found = 0.0
    for t in range(int(response)):
        read = weights + cache_bytes(c, rows * (prompt + t), number)
        seen = 4 * c.layers * c.heads * c.head_size * rows * (prompt + t)
        found += max(read / processor.bandwidth, (operations + seen) / processor.flops) / share
    return found


def _checked(utilisation: float) -> float:
    if not 0 < utilisation <= 1:
        raise InvalidHyperparameterError(f"utilisation={utilisation} must lie in (0, 1].")
    return utilisation
