"""Whether a model can be trained, scored and sampled on this machine, and the mend for each no.

What `irlbook doctor MODEL` shows. Nothing is believed of a model by its name: it is loaded, scores
two responses, learns from them for a moment, and answers a prompt. Memory is computed.

A step of training holds, in bytes, with P parameters of which T learn (4 bytes each; an adapter of
rank r on a matrix of n by m learns r (n + m)):

    weights       4 P     online training keeps three copies: the start, the policy, the reference
    gradients     4 T
    AdamW         8 T     two moments
    activations   4 M (L (20 H + 5 F) + 3 V)     M tokens at once, L layers of width H and F; an
                                                 adapter adds two fifths to what layers keep
    cache         8 R S L K                      online: R rows of S tokens, keys and values of K

and a tenth of it all, which is lost between the pieces. DPO's reference is computed beforehand and
kept as numbers, so it costs no copy. (Measured peaks of runs on a CPU were .85 to 1.05 of this.)
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from irlbook.errors import IrlbookError, PlainRowsWarning, TokenizerError
from irlbook.lm import architecture, models, sampling, tokenization
from irlbook.lm.logprobs import token_logps
from irlbook.lm.memory import free_memory, size
from irlbook.lm.trees import collate
from irlbook.posttraining.configs import OnlineConfig
from irlbook.posttraining.files import is_classifier
from irlbook.posttraining.pipeline import resolve
from irlbook.posttraining.reward_model import RewardScorer
from irlbook.training.config import StepConfig
from irlbook.training.distributed import check_device

__all__ = [
    "Finding",
    "MARKS",
    "Method",
    "ModelReport",
    "RANK",
    "check_model",
    "memory_needed",
]

RANK = 8  # of the adapter that the memory of LoRA is computed for
MARKS = {"yes": "ok  ", "note": "note", "no": "NO  "}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        verdict: `note` is worth knowing and stops nothing.
        mend: what to do; given with every `no`.
    """

    what: str
    verdict: Literal["yes", "note", "no"]
    said: str
    mend: str = ""

    def __str__(self) -> str:
        line = f"{MARKS[self.verdict]} {self.what}: {self.said}"
        return f"{line}\n       mend: {self.mend}" if self.mend else line


@dataclass
class ModelReport:
    """What was found about one model on one device."""

    name: str
    device: str
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """It can be scored and sampled (a reward model: scored), and trained in one way at least.

        A method that alone needs too much memory is a no in its line and spoils nothing else.
        """
        memory = [one for one in self.findings if one.what.startswith("memory")]
        others = [one for one in self.findings if not one.what.startswith("memory")]
        fits = not memory or any(one.verdict == "yes" for one in memory)
        return fits and all(one.verdict != "no" for one in others)

    def lines(self) -> list[str]:
        """For people: a line for each finding, and one for its mend."""
        return [line for one in self.findings for line in str(one).split("\n")]


def check_model(name: str | Path, device: str = "cpu") -> ModelReport:
    """Look at a model by name or folder (a run's, a reward model's, an adapter's).

    It never raises: what goes wrong is a finding with its mend.
    """
    report = ModelReport(str(name), device)
    found = report.findings
    with _finding(found, "device", "use a device that this machine has"):
        check_device(device)
    if found:
        return report
    free = free_memory(device)
    with _finding(found, "loads", "check the name; irlbook doctor alone checks the installation"):
        source = resolve(Path(name).expanduser() if str(name).startswith("~") else name)
        reward = is_classifier(source)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            load = models.load_reward_model if reward else models.load_lm
            model, tokenizer = load(source, device)
        parameters = models.count_parameters(model)
        kind = "reward model" if reward else "language model"
        found.append(
            Finding(
                "loads",
                "yes",
                f"{architecture.name_of(model)}, a {kind} of {parameters:,} parameters",
            )
        )
        found += [
            Finding("weights", "note", str(one.message))
            for one in said
            if issubclass(one.category, models.UnusedWeightsWarning)
        ]
    if any(one.verdict == "no" for one in found):
        return report
    _look_at_context(found, model)
    _look_at_tokenizer(found, model, tokenizer, reward)
    _try_scores(found, model, tokenizer, reward, free > 12 * parameters)
    if not reward:
        _try_samples(found, model, tokenizer)
    _look_at_memory(found, model, device, free, reward)
    return report


@contextmanager
def _finding(found: list[Finding], what: str, mend: str) -> Iterator[None]:
    """Turn an error into a finding that it cannot be done."""
    try:
        yield
    except IrlbookError as error:  # its message ends with the mend
        found.append(Finding(what, "no", " ".join(str(error).split())))
    except Exception as error:  # whatever transformers, peft or a damaged file raise
        text = " ".join(str(error).split())[:300]
        found.append(Finding(what, "no", f"{type(error).__name__}: {text}", mend))


def _look_at_context(found: list[Finding], model: Any) -> None:
    length = architecture.context_of(model.config)
    if length is None:
        said = "the model does not say how much it can read; give --max-length"
        found.append(Finding("context", "note", said))
    else:
        found.append(Finding("context", "yes", f"{length:,} tokens of prompt and response"))


def _look_at_tokenizer(found: list[Finding], model: Any, tokenizer: Any, reward: bool) -> None:
    """Pad, end of a turn, chat template."""
    with _finding(found, "end of a response", "set tokenizer.eos_token and save the tokenizer"):
        end = tokenization.end_id(tokenizer)
        stops = tokenizer.convert_ids_to_tokens(tokenization.stop_ids(tokenizer, model))
        text = f"{tokenizer.convert_ids_to_tokens(end)}; sampling stops at {', '.join(stops)}"
        found.append(Finding("end of a response", "yes", text))
        pad, mend = tokenizer.pad_token_id, ""
        if pad is not None and pad != end and pad != tokenizer.eos_token_id:
            found.append(Finding("pad", "yes", str(tokenizer.pad_token)))
        else:
            said = "none" if pad is None else f"{tokenizer.pad_token}, which also ends a response"
            said += "; harmless here, where lengths are known"
            own = copy.deepcopy(tokenizer)
            try:
                models.give_pad(own, model, set(tokenization.stop_ids(tokenizer, model)))
                said += f"; a reward model made from it pads with {own.pad_token}"
            except TokenizerError as error:
                said, mend = f"{said}, but no reward model can be made from it", str(error)
            found.append(Finding("pad", "note", said, mend))
    with _finding(found, "chat template", "set tokenizer.chat_template and save the tokenizer"):
        if tokenization.template_of(tokenizer) is None:
            said = "none: a prompt is a text to go on with, and lists of messages are refused"
            mend = "for messages set tokenizer.chat_template (lm.tokenization.CHAT_TEMPLATE is one)"
            found.append(Finding("chat template", "note", said, "" if reward else mend))
            return
        try:
            tokenization.check_chat_template(tokenizer)
        except TokenizerError as error:
            first, *_, mend = str(error).split("\n")
            found.append(Finding("chat template", "note", first.rstrip(":"), mend))
        else:
            found.append(Finding("chat template", "yes", "a prompt is the start of its chat"))


def _try_scores(
    found: list[Finding], model: Any, tokenizer: Any, reward: bool, learn: bool
) -> None:
    """Score two responses, and take their gradient if there is room for one."""
    mend = "use a Llama, Qwen2, SmolLM or GPT-2 style model"
    with _finding(found, "scored", mend), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        prompt = tokenization.encode_prompt(tokenizer, "Who is there?")
        answers = [tokenization.encode_response(tokenizer, text) for text in ("A friend.", "I.")]
        tree = collate([(prompt, answers), (prompt[:1], answers[:1])]).to(_device(model))
        score: Callable[..., Any] = RewardScorer(model) if reward else token_logps
        with torch.no_grad():
            values = score(tree) if reward else score(model, tree)
        if not values.isfinite().all():
            raise ArithmeticError("its scores are not finite numbers; its training diverged")
        slow = [str(one.message) for one in said if one.category is PlainRowsWarning]
        text = slow[0] if slow else "packed, prompts computed once"
        found.append(Finding("scored", "note" if slow else "yes", text))
    if learn and found[-1].verdict != "no":
        with _finding(found, "learns", mend), architecture.evaluating(model):
            (score(tree) if reward else score(model, tree)).mean().backward()
            moved = any(p.grad is not None and p.grad.any() for p in model.parameters())
            model.zero_grad(set_to_none=True)
            if not moved:
                raise ArithmeticError("no weight gets a gradient")


def _try_samples(found: list[Finding], model: Any, tokenizer: Any) -> None:
    mend = "use a Llama, Qwen2, SmolLM or GPT-2 style model"
    with _finding(found, "sampled", mend), warnings.catch_warnings():
        warnings.simplefilter("ignore", PlainRowsWarning)
        prompts = [tokenization.encode_prompt(tokenizer, text) for text in ("Who?", "Where are we")]
        context = architecture.context_of(model.config) or 1 << 20
        room = min(8, context - max(map(len, prompts)))
        stops = tokenization.stop_ids(tokenizer, model)
        drawn = sampling.sample(model, prompts, 2, max_new_tokens=room, stop_ids=stops, seeds=0)
        text = tokenization.decode(tokenizer, drawn.responses[0])
        plain = any(not good for good in architecture.findings(model).cached.values())
        how = "without a cache, which is slow" if plain else "prompts computed once"
        said = f"{how}; to 'Who?' it says {text[:60]!r}"
        found.append(Finding("sampled", "note" if plain else "yes", said))


def _look_at_memory(found: list[Finding], model: Any, device: str, free: int, reward: bool) -> None:
    """What each way of training needs, against what was free before the model was loaded."""
    tokens = StepConfig().max_tokens
    methods: tuple[Method, ...] = ("reward",) if reward else ("sft", "dpo", "rloo")
    needs = {
        (method, lora): memory_needed(model, method, RANK if lora else None, tokens=tokens)
        for method in methods
        for lora in (False, True)
    }
    for (method, lora), need in needs.items():
        how = f"memory, {method}{f' --lora {RANK}' if lora else ''}"
        said = f"{size(need)} with {tokens:,} tokens at once; {size(free)} are free on {device}"
        if need <= free:
            more = "" if not lora or find_spec("peft") else '; pip install "irlbook[lora]" first'
            found.append(Finding(how, "yes", said + more))
            continue
        fixed = memory_needed(model, method, RANK if lora else None, tokens=0)
        fewer = int(tokens * (free - fixed) / max(1, need - fixed)) // 256 * 256
        if fewer >= 256:
            mend = f"--max-tokens {fewer} fits"
        elif not lora and needs[method, True] <= free:
            mend = f"--lora {RANK} fits"
        else:
            mend = "take a smaller model, or a device with more memory"
        found.append(Finding(how, "no", said, mend))


Method = Literal["sft", "reward", "dpo", "rloo"]


def memory_needed(
    model: Any, method: Method, lora: int | None = None, *, tokens: int | None = None
) -> int:
    """Bytes that a step of training holds at its peak, by the formula above, in float32.

    Args:
        lora: the rank of an adapter, or None to train all weights.
        tokens: M, tokens of a micro-batch; by default those of a run that says nothing.
    """
    tokens = StepConfig().max_tokens if tokens is None else tokens
    online = OnlineConfig()
    config = model.config
    all_weights = models.count_parameters(model)
    learn = all_weights if lora is None else lora * sum(map(sum, _matrices(model)))
    copies = 3 if method == "rloo" else 1
    width = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * width
    words = 1 if method == "reward" else config.vocab_size
    layers = config.num_hidden_layers * (20 * width + 5 * inner) * (1.4 if lora else 1.0)
    need = 4 * copies * all_weights + (16 if lora else 12) * learn
    need += 4 * tokens * (layers + 3 * words)
    if method == "rloo" and tokens:
        rows = online.prompts * online.samples
        length = 2 * online.max_new_tokens  # a prompt as long as its response
        heads = getattr(config, "num_attention_heads", None) or 1
        kept = (getattr(config, "num_key_value_heads", None) or heads) * (width // heads)
        need += 8 * rows * length * config.num_hidden_layers * kept
    return int(1.1 * need)


def _matrices(model: Any) -> list[tuple[int, int]]:
    """(n, m) of each matrix that an adapter would stand on: all linear layers but the head."""
    head = model.get_output_embeddings()
    return [
        (part.weight.shape[0], part.weight.shape[1])
        for part in model.modules()
        if type(part).__name__ in ("Linear", "Conv1D") and part is not head
    ]


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device
