"""No setting is accepted and then ignored: it is used, or refused by its name."""

from dataclasses import fields

import pytest

from irlbook.errors import InvalidHyperparameterError
from irlbook.posttraining import configs
from irlbook.posttraining.configs import (
    EmbeddingConfig,
    IterativeConfig,
    OnlineConfig,
    PreferenceConfig,
    RaftConfig,
    RewardConfig,
    RewardSource,
)
from irlbook.training import StepConfig, TrainingConfig

OTHER = {  # a value of each setting that is neither its default nor off
    "centering": 0.1, "use_margin": True, "beta": 0.3, "label_smoothing": 0.1,
    "length_normalised": True, "margin": 2.0, "sft_weight": 0.2, "desirable_weight": 2.0,
    "undesirable_weight": 2.0, "clip_low": 0.3, "clip_high": 0.4, "redraws": 3, "overlong": 5,
    "lam": 0.9, "value_weight": 0.1, "value_rate": 3.0, "value_clip": 0.5,
}  # fmt: skip
OWNED = [
    (kind, choice, owner, name)
    for kind, choice, owners in (
        (RewardConfig, "loss", configs.REWARD_OWNERS),
        (PreferenceConfig, "loss", configs.PREFERENCE_OWNERS),
        (OnlineConfig, "method", configs.METHOD_OWNERS),
    )
    for name, owner in owners.items()
    if name in OTHER
]
SIMPO = PreferenceConfig("simpo")
CHOICES = {
    RewardConfig: ("bt", "classification"),
    PreferenceConfig: ("dpo", "robust", "exo", "ipo", "rso", "slic", "simpo", "kto"),
    OnlineConfig: tuple(configs.METHODS),
}


@pytest.mark.parametrize("kind, choice, owner, name", OWNED)
def test_a_setting_of_another_choice_is_refused_by_name(kind, choice, owner, name):
    for chosen in CHOICES[kind]:
        given = {choice: chosen, name: OTHER[name]}
        if chosen in owner:
            assert getattr(kind(**given), name) == OTHER[name]
        else:
            with pytest.raises(InvalidHyperparameterError, match=f"{name} is .*{chosen}"):
                kind(**given)


def test_what_is_off_is_refused_by_nobody():
    assert OnlineConfig("rloo", redraws=0, overlong=0, whiten=False, value_weight=0).redraws == 0
    assert RewardConfig("classification", centering=0.0, use_margin=False).centering == 0


@pytest.mark.parametrize("kind", [RaftConfig, IterativeConfig])
@pytest.mark.parametrize("name, value", [("seed", 3), ("shard", True), ("evaluate_every", 7)])
def test_a_round_refuses_what_its_steps_cannot_use(kind, name, value):
    with pytest.raises(InvalidHyperparameterError, match=f"{name} of a round's training"):
        kind(training=TrainingConfig(**{name: value}))


def test_online_training_takes_no_setting_of_a_pass_over_data():
    passes = {one.name for one in fields(TrainingConfig)} - {one.name for one in fields(StepConfig)}
    assert passes == {
        "epochs", "steps", "batch_size", "bucket", "share_prompts", "dropout", "seed",
        "patience",
    }  # fmt: skip
    with pytest.raises(InvalidHyperparameterError, match="give a StepConfig"):
        OnlineConfig(training=TrainingConfig())


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: EmbeddingConfig(epochs=5), "epochs is 5, and a linear reward"),
        (
            lambda: IterativeConfig(reference="previous", loss=PreferenceConfig("simpo")),
            "simpo has",
        ),
        (lambda: OnlineConfig(estimator="k4"), "estimator is 'k4'; use k1, k2, k3"),
        (lambda: OnlineConfig(normalisation="mean"), "normalisation is 'mean'; use sequence"),
        (lambda: OnlineConfig("ppo", lam=1.5), "lam is 1.5"),
        (lambda: RewardSource("runs/reward"), "give a list"),
        (lambda: RewardSource([]), "give a list"),
        (lambda: RewardSource(["a", "b"], ensemble="median"), "use mean, worst, uncertainty"),
        (lambda: StepConfig(betas=(0.9, 1.0)), "betas"),
        (lambda: StepConfig(weight_decay=-1.0), "weight_decay"),
        (lambda: TrainingConfig(patience=0), "patience"),
    ],
)
def test_settings_that_cannot_be_are_named(make, words):
    with pytest.raises(InvalidHyperparameterError, match=words):
        make()
