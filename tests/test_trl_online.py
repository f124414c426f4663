"""GRPO and RLOO on one ragged batch of samples: advantages, losses and gradients against TRL's.

TRL's trainers score the samples, ask for rewards and compute the loss themselves; only the sampling
is taken from them, so that both sides see the same responses. Where TRL is not installed
(`pip install irlbook[trl]`) these tests are skipped; `test_posttraining_policy_gradient.py` holds
the same functions to exact gradients.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from irlbook.lm.logprobs import sequence_logps, token_logps
from irlbook.lm.sampling import Samples
from irlbook.lm.trees import Group, collate
from irlbook.posttraining import policy_gradient as pg
from irlbook.posttraining.kl import kl_loss, kl_penalty
from irlbook.posttraining.online import OnlineConfig, train_online
from irlbook.training import StepConfig
from tests.test_trl import CLOSE, EOS, PAD, assert_same, causal, gradients, text, word_tokenizer

LIMIT, BETA, LOW, HIGH = 6, 0.3, 0.2, 0.28
SAMPLES: list[Group] = [
    ([5, 6, 7], [[8, 9, 10, 11, EOS], [12, EOS], [9, 9, 9, 9, 9, 9]]),  # the last one was cut
    ([13], [[EOS], [14, EOS], [15, 16, 17, 18, 19, EOS]]),
    ([21, 22, 23, 24, 25, 26], [[28, 29, 30, EOS], [31, EOS], [28, EOS]]),
]
REWARDS = torch.tensor([[1.0, -0.5, 2.0], [0.25, 3.0, 0.5], [2.0, 2.0, 2.0]])  # the last: constant
LOUD = 1e4 * REWARDS  # TRL divides by std + 1e-4; here that is the std
TREE = collate(SAMPLES, PAD)


def trl_side(
    kind: str,
    rewards: Tensor,
    folder: Any,
    monkeypatch: Any,
    *,
    drawn_by: int = 0,
    scored_by: int = 0,
    **more: Any,
) -> tuple[Tensor, tuple[float, dict[str, Tensor]]]:
    """(advantages (R,), (loss, gradient)) of TRL on the samples.

    Args:
        drawn_by, scored_by: seeds of the policy when it sampled, and now. The reference is seed 2.
    """
    trl = pytest.importorskip("trl", reason="the extra `trl` is not installed")
    datasets = pytest.importorskip("datasets")
    logging.getLogger("trl").setLevel(logging.ERROR)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    datasets.disable_progress_bars()
    grpo = kind == "grpo"
    responses = [answer for _, answers in SAMPLES for answer in answers]
    base = trl.GRPOTrainer if grpo else trl.RLOOTrainer

    class Trainer(base):
        def _generate_single_turn(self, *_: Any, **__: Any) -> Any:
            return (responses, None) if grpo else responses

    reference = causal(2)
    reference.save_pretrained(folder)
    policy = causal(drawn_by)
    policy.config._name_or_path = str(folder)  # where TRL loads the reference from
    if grpo:
        more["use_bias_correction_kl"] = False  # TRL's default weighs k3 by the ratio
    options = {"beta": BETA, "epsilon": LOW, "epsilon_high": HIGH, "num_iterations": 2} | more
    config = (trl.GRPOConfig if grpo else trl.RLOOConfig)(
        output_dir=str(folder), per_device_train_batch_size=9, num_generations=3,
        max_completion_length=LIMIT, bf16=False, use_cpu=True, gradient_checkpointing=False,
        report_to="none", **options,
    )  # fmt: skip
    rows = [{"prompt": text(prompt).strip()} for prompt, answers in SAMPLES for _ in answers]
    trainer = Trainer(
        model=policy, args=config, processing_class=word_tokenizer(),
        reward_funcs=lambda completions, **_: rewards.flatten().tolist(),
        train_dataset=datasets.Dataset.from_list(rows),
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1  # `train` sets it
    policy.train()
    batch = trainer._generate_and_score_completions(rows)
    policy.load_state_dict(causal(scored_by).state_dict())
    loss = trainer.compute_loss(policy, batch)
    return batch["advantages"], (float(loss.detach()), gradients(policy, loss))


def logps(seed: int) -> Tensor:
    with torch.no_grad():
        return token_logps(causal(seed), TREE)


def our_grpo(
    advantages: Tensor, normalisation: pg.Normalisation, estimator: str = "k3"
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient of the policy 1 on what the policy 0 drew."""
    policy = causal(1)
    now = token_logps(policy, TREE)
    spread = pg.per_token(advantages.flatten(), TREE.lengths)
    losses = pg.clipped_surrogate(now, logps(0), spread, LOW, HIGH)
    losses = losses + BETA * kl_loss(now, logps(2), estimator)
    loss = pg.aggregate(losses, TREE.lengths, normalisation, LIMIT)
    return float(loss.detach()), gradients(policy, loss)


def our_rloo() -> tuple[Tensor, dict[str, Tensor]]:
    """(advantages (P, k), gradient) of fresh samples, the KL taken off the reward."""
    policy: nn.Module = causal(0)
    now = token_logps(policy, TREE)
    price = sequence_logps(kl_penalty(now, logps(2)), TREE.lengths)
    advantages = pg.rloo_advantage(REWARDS - BETA * price.view(REWARDS.shape))
    losses = pg.reinforce_loss(now, pg.per_token(advantages.flatten(), TREE.lengths))
    return advantages, gradients(policy, pg.aggregate(losses, TREE.lengths, "constant", 1.0))


NORMALISATION = {"grpo": "sequence", "bnpo": "token", "dapo": "token", "dr_grpo": "constant"}


@pytest.mark.parametrize("loss_type", NORMALISATION)
def test_the_grpo_loss_is_trls(loss_type: str, tmp_path, monkeypatch) -> None:
    """Each normalisation, with the clip in force and the KL in the loss."""
    plain = loss_type == "dr_grpo"
    rewards = REWARDS if plain else LOUD
    advantages, theirs = trl_side(
        "grpo", rewards, tmp_path, monkeypatch, scored_by=1, loss_type=loss_type,
        scale_rewards="none" if plain else "group",
    )  # fmt: skip
    ours = pg.grpo_advantage(rewards, scale=not plain)
    torch.testing.assert_close(ours.flatten(), advantages, atol=CLOSE, rtol=CLOSE)
    assert_same(our_grpo(ours, NORMALISATION[loss_type]), theirs)
    for other in set(NORMALISATION.values()) - {NORMALISATION[loss_type]}:
        with pytest.raises(AssertionError):
            assert_same(our_grpo(ours, other), theirs)
    with pytest.raises(AssertionError):
        assert_same(our_grpo(ours, NORMALISATION[loss_type], "k2"), theirs)


def test_the_clip_is_in_force() -> None:
    """Or the test above would say nothing about it: all four corners have tokens."""
    ratio = (logps(1) - logps(0)).exp()
    up = pg.per_token(pg.grpo_advantage(REWARDS).flatten(), TREE.lengths)
    for sign in (up > 0, up < 0):
        assert (sign & (ratio > 1 + HIGH)).any() and (sign & (ratio < 1 - LOW)).any()


def test_the_std_is_trls(tmp_path, monkeypatch) -> None:
    """It divides by k - 1. TRL adds 1e-4 to it; we set a constant group to zero instead."""
    advantages, _ = trl_side("grpo", REWARDS, tmp_path, monkeypatch)
    advantages, std = advantages.view(REWARDS.shape), REWARDS.std(dim=1, keepdim=True)
    ours = pg.grpo_advantage(REWARDS)
    torch.testing.assert_close(ours * std / (std + 1e-4), advantages, atol=1e-6, rtol=0)
    assert (advantages[2] == 0).all() and (ours[2] == 0).all()
    biased = (REWARDS - REWARDS.mean(1, keepdim=True)) / REWARDS.std(1, False, True)
    assert (biased[:2] - advantages[:2]).abs().min() > 0.01


def test_rloo_with_kl_is_trls(tmp_path, monkeypatch) -> None:
    """Advantages and gradient; the losses themselves are not comparable (theirs is -mean A)."""
    advantages, (loss, theirs) = trl_side("rloo", REWARDS, tmp_path, monkeypatch)
    ours, gradient = our_rloo()
    torch.testing.assert_close(ours.flatten(), advantages, atol=CLOSE, rtol=0)
    assert loss == pytest.approx(-float(ours.mean()), abs=CLOSE)
    assert_same((0.0, gradient), (0.0, theirs))


def first_gradient(method: str, rewards: Tensor) -> dict[str, Tensor]:
    """What the optimiser gets in the first step of `train_online` on the samples."""
    found: list[Tensor] = []

    def keep(optimizer: Any, *_: Any) -> None:
        found.extend(p.grad.clone() for part in optimizer.param_groups for p in part["params"])

    def sampler(model: Any, prompts: Any, n: int, **_: Any) -> Samples:
        assert [list(prompt) for prompt in prompts] == [prompt for prompt, _ in SAMPLES]
        ended = [answer[-1] == EOS for _, answers in SAMPLES for answer in answers]
        return Samples(SAMPLES, list(logps(0).split(TREE.lengths.tolist())), ended)

    config = OnlineConfig(
        method, iterations=1, prompts=3, samples=3, max_new_tokens=LIMIT,
        training=StepConfig(max_grad_norm=float("inf"), progress=False),
    )  # fmt: skip
    model, prompts = causal(0), [text(prompt).strip() for prompt, _ in SAMPLES]
    handle = register_optimizer_step_pre_hook(keep)
    try:
        train_online(
            model, word_tokenizer(), prompts, lambda *_: rewards.flatten().tolist(), config,
            sampler=sampler,
        )  # fmt: skip
    finally:
        handle.remove()
    named = sorted(model.named_parameters(), key=lambda item: item[1].ndim < 2)
    return dict(zip([name for name, _ in named], found, strict=True))


@pytest.mark.parametrize("method", ["grpo", "dr_grpo", "rloo"])
def test_the_first_step_of_the_loop_is_trls(method: str, tmp_path, monkeypatch) -> None:
    """From rewards to the gradient. The policy is the reference, so the price of KL is 0."""
    options = {"grpo": {"loss_type": "grpo"}, "rloo": {}}
    options["dr_grpo"] = {"loss_type": "dr_grpo", "scale_rewards": "none"}
    rewards, kind = LOUD if method == "grpo" else REWARDS, "rloo" if method == "rloo" else "grpo"
    side = trl_side(kind, rewards, tmp_path, monkeypatch, beta=0.0, **options[method])
    assert_same((0.0, first_gradient(method, rewards)), (0.0, side[1][1]))
