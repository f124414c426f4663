"""Our losses and their gradients against the formula written out plainly, and against TRL's.

The plain formula runs everywhere. TRL's trainers run where TRL is installed (`pip install
irlbook[trl]`): each computes its loss on a batch that its own collator made from text, so its
tokenising, padding, masking and shifting are compared too.

What would be caught, each planted below: a response without its end token, a prompt token that
carries loss, an average for the sum, chosen and rejected swapped, a reference that moves with the
policy, a reward read one token early.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.models import tiny_lm
from irlbook.lm.trees import Group, collate
from irlbook.posttraining import dpo, reward_model, sft
from irlbook.posttraining.reward_model import RewardScorer
from irlbook.training import Batch, Objective, score

EOS, PAD, UNKNOWN, VOCABULARY = 0, 1, 2, 40
BETA = 0.3
CLOSE = 1e-5

PAIRS: list[Group] = [
    ([5, 6, 7], [[8, 9, 10, 11, EOS], [12, EOS]]),
    ([13], [[14, EOS], [15, 16, 17, 18, 19, 20, EOS]]),
    ([21, 22, 23, 24, 25, 26, 27], [[EOS], [28, 29, 30, EOS]]),
    ([31, 5, 5], [[5, 5, EOS], [5, EOS]]),
    ([33, 34], [[35, 36, 37, 38, 39, EOS], [35, 36, 4, 38, 39, EOS]]),
]
DEMONSTRATIONS: list[Group] = [(prompt, answers[:1]) for prompt, answers in PAIRS]


def causal(seed: int, kind: str = "llama") -> nn.Module:
    """A tiny model whose predictions differ from token to token."""
    model = tiny_lm(VOCABULARY, kind, hidden=16, context=64, kv_heads=2, tied=False, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5.0)
    model.config.pad_token_id, model.config.eos_token_id = PAD, EOS
    return model


def classifier() -> nn.Module:
    """A reward model of transformers with the weights of `causal`."""
    from transformers import LlamaForSequenceClassification

    body = causal(0)
    config = copy.deepcopy(body.config)
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForSequenceClassification(config)
        nn.init.normal_(model.score.weight)
    model.model.load_state_dict(body.model.state_dict())
    return model


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The gradient by parameter; the model's own are put back to none."""
    model.zero_grad()
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def our_side(
    scorer: nn.Module, groups: Sequence[Group], objective: Objective, reference: Tensor | None
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient as the training loop computes them."""
    batch = Batch(collate(groups, PAD), torch.arange(len(groups)), reference, {})
    loss = objective.values(scorer(batch.tree), batch)["loss"].mean()
    return float(loss.detach()), gradients(scorer.model, loss)


def assert_same(
    ours: tuple[float, dict[str, Tensor]], theirs: tuple[float, dict[str, Tensor]]
) -> None:
    assert ours[0] == pytest.approx(theirs[0], abs=CLOSE)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        assert (ours[1][name] - gradient).abs().max() <= CLOSE, name
    assert max(gradient.abs().max() for gradient in theirs[1].values()) > 1e-2  # not all zeros


# The formula, plainly -----------------------------------------------------------------------------


def padded(groups: Sequence[Group]) -> tuple[Tensor, Tensor, Tensor]:
    """One right-padded row a response: ids, attention mask, and which *targets* are response's."""
    rows = [(p, y) for p, answers in groups for y in answers]
    width = max(len(p) + len(y) for p, y in rows)
    ids = torch.tensor([[*p, *y] + [PAD] * (width - len(p) - len(y)) for p, y in rows])
    mask = torch.tensor(
        [[1] * (len(p) + len(y)) + [0] * (width - len(p) - len(y)) for p, y in rows]
    )
    response = [[len(p) <= t < len(p) + len(y) for t in range(1, width)] for p, y in rows]
    return ids, mask, torch.tensor(response)


def plain_logps(model: nn.Module, groups: Sequence[Group]) -> Tensor:
    """(R,) log pi(y|x) = sum over response tokens of log softmax(logits of the token before)."""
    ids, mask, response = padded(groups)
    steps = model(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
    return (steps.gather(2, ids[:, 1:, None])[:, :, 0] * response).sum(1)


def plain_dpo(policy: nn.Module, reference: nn.Module, groups: Sequence[Group]) -> Tensor:
    with torch.no_grad():
        before = plain_logps(reference, groups)
    ratio = plain_logps(policy, groups) - before
    return -logsigmoid(BETA * (ratio[0::2] - ratio[1::2])).mean()


def plain_reward(model: nn.Module, groups: Sequence[Group]) -> Tensor:
    ids, mask, _ = padded(groups)
    hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
    last = hidden[torch.arange(len(ids)), mask.sum(1) - 1]
    rewards = model.score(last)[:, 0]
    return -logsigmoid(rewards[0::2] - rewards[1::2]).mean()


def plain_sft(model: nn.Module, groups: Sequence[Group]) -> Tensor:
    _, _, response = padded(groups)
    return -plain_logps(model, groups).sum() / response.sum()


def our_dpo(policy: nn.Module, reference: nn.Module) -> tuple[float, dict[str, Tensor]]:
    objective = dpo.objective(dpo.PreferenceConfig(beta=BETA))
    known = score(ResponseScorer(reference), PAIRS, 2, pad_id=PAD)
    return our_side(ResponseScorer(policy), PAIRS, objective, known)


def our_sft(model: nn.Module) -> tuple[float, dict[str, Tensor]]:
    return our_side(ResponseScorer(model), DEMONSTRATIONS, sft.objective(DEMONSTRATIONS), None)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_dpo_is_the_formula(kind: str) -> None:
    policy, reference = causal(0, kind), causal(1, kind)
    loss = plain_dpo(policy, reference, PAIRS)
    assert_same(our_dpo(policy, reference), (float(loss.detach()), gradients(policy, loss)))


def test_reward_model_is_the_formula() -> None:
    model = classifier()
    loss = plain_reward(model, PAIRS)
    ours = our_side(RewardScorer(model), PAIRS, reward_model.objective(), None)
    assert_same(ours, (float(loss.detach()), gradients(model, loss)))


def test_sft_is_the_formula() -> None:
    model = causal(0)
    loss = plain_sft(model, DEMONSTRATIONS)
    assert_same(our_sft(model), (float(loss.detach()), gradients(model, loss)))


def without_ends(groups: Sequence[Group]) -> list[Group]:
    return [(p, [y[:-1] or y for y in answers]) for p, answers in groups]


def swapped(groups: Sequence[Group]) -> list[Group]:
    return [(p, answers[::-1]) for p, answers in groups]


def prompt_scored(groups: Sequence[Group]) -> list[Group]:
    """The last prompt token carries loss. In DPO it cancels, so SFT must see it."""
    return [(p[:-1], [p[-1:] + y for y in answers]) for p, answers in groups if len(p) > 1]


def averaged_dpo(policy: nn.Module, reference: nn.Module, groups: Sequence[Group]) -> Tensor:
    lengths = torch.tensor([len(y) for _, answers in groups for y in answers])
    with torch.no_grad():
        before = plain_logps(reference, groups)
    ratio = (plain_logps(policy, groups) - before) / lengths
    return -logsigmoid(BETA * (ratio[0::2] - ratio[1::2])).mean()


MISTAKES: dict[str, Callable[[nn.Module, nn.Module], Tensor]] = {
    "no end token": lambda policy, before: plain_dpo(policy, before, without_ends(PAIRS)),
    "swapped": lambda policy, before: plain_dpo(policy, before, swapped(PAIRS)),
    "mean for sum": lambda policy, before: averaged_dpo(policy, before, PAIRS),
    "moving reference": lambda policy, before: plain_dpo(policy, policy, PAIRS),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_error_in_dpo_is_seen(mistake: str) -> None:
    policy, reference = causal(0), causal(1)
    wrong = MISTAKES[mistake](policy, reference)
    with pytest.raises(AssertionError):
        assert_same(our_dpo(policy, reference), (float(wrong.detach()), gradients(policy, wrong)))


@pytest.mark.parametrize("mistake", [without_ends, prompt_scored])
def test_a_planted_error_in_sft_is_seen(mistake: Callable[..., list[Group]]) -> None:
    model = causal(0)
    wrong = plain_sft(model, mistake(DEMONSTRATIONS))
    with pytest.raises(AssertionError):
        assert_same(our_sft(model), (float(wrong.detach()), gradients(model, wrong)))


def test_a_reward_read_one_token_early_is_seen() -> None:
    model = classifier()
    wrong = plain_reward(model, without_ends(PAIRS))
    ours = our_side(RewardScorer(model), PAIRS, reward_model.objective(), None)
    with pytest.raises(AssertionError):
        assert_same(ours, (float(wrong.detach()), gradients(model, wrong)))


# TRL ----------------------------------------------------------------------------------------------


def word_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<eos>": EOS, "<pad>": PAD, "<unk>": UNKNOWN}
    words |= {f"w{i}": i for i in range(3, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


def text(ids: Sequence[int]) -> str:
    """The words; TRL puts the end token itself."""
    return "".join(f" w{i}" for i in ids if i != EOS)


def trl_side(
    kind: str, model: nn.Module, groups: Sequence[Group], folder: str, monkeypatch: Any, **more: Any
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient of TRL's trainer on one batch of all examples, in their order."""
    trl = pytest.importorskip("trl", reason="the extra `trl` is not installed")
    datasets = pytest.importorskip("datasets")
    logging.getLogger("trl").setLevel(logging.ERROR)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    datasets.disable_progress_bars()
    trainer_class, config_class = {
        "dpo": (trl.DPOTrainer, trl.DPOConfig),
        "reward": (trl.RewardTrainer, trl.RewardConfig),
        "sft": (trl.SFTTrainer, trl.SFTConfig),
    }[kind]
    names = ("completion",) if kind == "sft" else ("chosen", "rejected")
    rows = [
        {"prompt": text(prompt).strip()} | dict(zip(names, map(text, answers), strict=True))
        for prompt, answers in groups
    ]
    inputs = {"ref_model": more.pop("ref_model")} if "ref_model" in more else {}
    config = config_class(
        output_dir=folder, per_device_train_batch_size=len(groups), bf16=False, use_cpu=True,
        gradient_checkpointing=False, report_to="none", **more,
    )  # fmt: skip
    trainer = trainer_class(
        model=model, args=config, train_dataset=datasets.Dataset.from_list(rows),
        processing_class=word_tokenizer(), **inputs,
    )  # fmt: skip
    trainer._set_signature_columns_if_needed()
    kept = [name for name in trainer._signature_columns if name in trainer.train_dataset[0]]
    batch = trainer.data_collator([{k: row[k] for k in kept} for row in trainer.train_dataset])
    model.train()
    loss = trainer.compute_loss(model, batch)
    return float(loss.detach()), gradients(model, loss)


@pytest.mark.parametrize("precomputed", [True, False], ids=["precomputed", "live"])
def test_dpo_is_trls(precomputed: bool, tmp_path, monkeypatch) -> None:
    policy, reference = causal(0), causal(1)
    ours = our_dpo(policy, reference)
    options = {"beta": BETA, "precompute_ref_log_probs": precomputed, "ref_model": reference}
    assert_same(ours, trl_side("dpo", policy, PAIRS, str(tmp_path), monkeypatch, **options))


def test_reward_model_is_trls(tmp_path, monkeypatch) -> None:
    model = classifier()
    ours = our_side(RewardScorer(model), PAIRS, reward_model.objective(), None)
    assert_same(ours, trl_side("reward", model, PAIRS, str(tmp_path), monkeypatch))


def test_sft_is_trls(tmp_path, monkeypatch) -> None:
    model = causal(0)
    ours = our_sft(model)
    assert_same(ours, trl_side("sft", model, DEMONSTRATIONS, str(tmp_path), monkeypatch))
