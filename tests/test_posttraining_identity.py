"""A run is told by what is in it, not by names; and a reward's file is loaded as Python would."""

import json
import os
import sys

import numpy as np
import pytest
import torch
from taste_world import THINGS, taught

from irlbook.errors import ResumeMismatchError, RewardError
from irlbook.lm import models
from irlbook.posttraining import online_pipeline, pipeline
from irlbook.posttraining.configs import OnlineConfig, RaftConfig, RewardSource, Source
from irlbook.posttraining.online_pipeline import content_of
from irlbook.posttraining.raft import RaftRound
from irlbook.posttraining.reward_model import RewardScorer
from irlbook.posttraining.reward_workers import FileReward, source_digest
from irlbook.posttraining.rollouts import PolicyScorer, ask, draw, draw_prompts
from irlbook.training import StepConfig, TrainingConfig, score
from irlbook.training.metrics_file import read_metrics

PROMPTS = [f"How was the {thing}?" for thing in THINGS]
QUIET = {"progress": False, "tensorboard": False}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    models.save(*taught(PROMPTS), folder / "start")
    with open(folder / "prompts.jsonl", "w") as file:
        file.writelines(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS)
    said = [{"prompt": p, "chosen": "a bus", "rejected": "a zoo"} for p in PROMPTS]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    said = [{"prompt": p, "completion": "a bus"} for p in PROMPTS]
    (folder / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    return folder


@pytest.fixture
def reward(tmp_path):
    """Write reward.py, and the module beside it that it imports."""

    def write(text: str = "return [0.1 * len(y) for y in responses]", unit: str = "1.0") -> str:
        (tmp_path / "units.py").write_text(f"UNIT = {unit}\n")
        (tmp_path / "reward.py").write_text(
            f"from units import UNIT\n\ndef reward(prompts, responses):\n    {text}\n"
        )
        return f"{tmp_path / 'reward.py'}:reward"

    return write


def rloo(world, name, out, iterations=2, **options):
    steps = StepConfig(learning_rate=1e-3, **QUIET)
    config = OnlineConfig(
        "rloo", iterations, prompts=4, samples=2, max_new_tokens=4, training=steps
    )
    source = Source(world / "start", world / "prompts.jsonl")
    given = name if isinstance(name, RewardSource) else RewardSource([name])
    return online_pipeline.train_policy(source, given, out, config, **options)


def raft(world, name, out, **options):
    steps = TrainingConfig(learning_rate=1e-3, steps=1, batch_size=2, **QUIET)
    config = RaftConfig(1, samples=8, max_new_tokens=6, training=steps)
    source = Source(world / "start", world / "prompts.jsonl")
    return online_pipeline.train_raft(source, RewardSource([name]), out, config, **options)


@pytest.mark.parametrize("method", [rloo, raft])
@pytest.mark.parametrize(
    "changed", [{"text": "return [-float(len(y)) for y in responses]"}, {"unit": "2.0"}]
)
def test_a_reward_that_changed_under_its_name_is_refused(world, reward, tmp_path, method, changed):
    """Its own source, or that of a module which it imports."""
    method(world, reward(), tmp_path / "run")
    with pytest.raises(ResumeMismatchError, match="reward.py:reward changed since.*--restart"):
        method(world, reward(**changed), tmp_path / "run")
    assert (
        method(world, reward(**changed), tmp_path / "run", resume=False)
        .reports[-1]
        .startswith(str(world))
    )


def test_a_finished_run_says_that_nothing_was_trained(world, reward, tmp_path):
    for method in (rloo, raft):
        out = tmp_path / method.__name__
        first = method(world, reward(), out)
        assert "nothing was trained" not in " ".join(first.reports)
        again = method(world, reward(), out)
        assert again.history == first.history
        assert again.reports[-1].startswith(f"nothing was trained: {out}")
    steps = TrainingConfig(steps=2, batch_size=2, **QUIET)
    for kind, data in (("sft", "demonstrations"), ("reward", "pairs"), ("dpo", "pairs")):
        work, out = getattr(pipeline, f"train_{kind}"), tmp_path / kind
        source = Source(world / "start", world / f"{data}.jsonl")
        assert "nothing was trained" not in " ".join(work(source, out, steps).reports)
        assert work(source, out, steps).reports[-1].startswith("nothing was trained")


def test_the_same_reward_by_another_name_goes_on(world, reward, tmp_path, monkeypatch):
    name = reward()
    rloo(world, name, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert "nothing was trained" in rloo(world, "reward.py:reward", tmp_path / "run").reports[-1]


def test_a_reward_model_trained_anew_in_its_folder_is_refused_as_reward_and_as_gold(
    world, reward, tmp_path
):
    def fill(seed):
        loaded = models.load_reward_model(world / "start", new_head=True, seed=seed)
        models.save(*loaded, tmp_path / "judge")

    fill(1)
    given = RewardSource([str(tmp_path / "judge")], gold=reward())
    rloo(world, given, tmp_path / "one")
    other = RewardSource([reward()], gold=str(tmp_path / "judge"))
    rloo(world, other, tmp_path / "two")
    fill(2)
    for source, out in ((given, "one"), (other, "two")):
        with pytest.raises(ResumeMismatchError, match="judge changed since"):
            rloo(world, source, tmp_path / out)
    with pytest.raises(ResumeMismatchError, match="gold was .*judge and is None"):
        rloo(world, reward(), tmp_path / "two")


def test_a_model_trained_anew_in_its_folder_is_another_start(world, reward, tmp_path):
    """Also where the sums of its weights are as they were."""
    model, tokenizer = models.load_lm(world / "start")
    models.save(model, tokenizer, tmp_path / "model")
    config = OnlineConfig(
        "rloo", 1, prompts=2, samples=2, max_new_tokens=4, training=StepConfig(**QUIET)
    )
    source = Source(tmp_path / "model", world / "prompts.jsonl")
    given = RewardSource([reward()])
    online_pipeline.train_policy(source, given, tmp_path / "run", config)
    weight = model.model.embed_tokens.weight.data
    weight[[5, 6]] = weight[[6, 5]].clone()
    models.save(model, tokenizer, tmp_path / "model")
    with pytest.raises(ResumeMismatchError, match="another model"):
        online_pipeline.train_policy(source, given, tmp_path / "run", config)


def test_a_reward_that_does_not_load_or_fails_at_once_claims_no_folder(world, reward, tmp_path):
    for text in ("import nothing_of_this_name\n", "def other(p, y): ...\n"):
        (tmp_path / "reward.py").write_text(text)
        with pytest.raises(RewardError):
            rloo(world, f"{tmp_path / 'reward.py'}:reward", tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(RewardError, match="gave None for the prompt 'How"):
        rloo(world, reward("return [None for y in responses]"), tmp_path / "run")
    rloo(world, reward(), tmp_path / "run")  # no step was taken on the other one


def test_a_digest_follows_imports_and_nothing_else(tmp_path):
    def write(name, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    write("reward.py", "import json\ndef f():\n    from tools.count import n\n")
    write("tools/__init__.py", "")
    write("tools/count.py", "import deep\nn = 1\n")
    write("deep.py", "")
    write("unused.py", "")
    found = {source_digest(tmp_path / "reward.py")}
    write("unused.py", "x = 1")
    assert source_digest(tmp_path / "reward.py") in found
    for name, text in (("tools/count.py", "import deep\nn = 2\n"), ("deep.py", "x = 1")):
        write(name, text)
        found.add(source_digest(tmp_path / "reward.py"))
    assert len(found) == 3


def test_an_adapter_is_told_by_its_base_too(world, tmp_path):
    model, tokenizer = models.load_lm(world / "start")
    models.save(model, tokenizer, tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "base")})
    )
    before = content_of(adapter)
    assert content_of(os.path.relpath(adapter)) == before
    model.model.embed_tokens.weight.data[5, 0] += 1
    models.save(model, tokenizer, tmp_path / "base")
    assert content_of(adapter) != before


def test_an_ensemble_of_rewards_is_scaled_on_samples_of_the_start(world):
    setup = online_pipeline._Setup(
        Source(world / "start", world / "prompts.jsonl"), StepConfig(**QUIET), 6, 3
    )
    members = [
        RewardScorer(models.load_reward_model(world / "start", new_head=True, seed=seed)[0])
        for seed in (1, 2)
    ]
    ensemble = setup._ensemble(members, "worst")
    drawn = draw(
        PolicyScorer(setup.model),
        setup.tokenizer,
        draw_prompts(setup.prompts, 64, 3),
        4,
        setup.training,
        seeds=int(np.random.SeedSequence([3, 64]).generate_state(1)[0]),
        max_new_tokens=6,
    )
    each = torch.stack([score(m, drawn.groups, 4).flatten() for m in members])
    z = (each - each.mean(1, keepdim=True)) / each.std(1, keepdim=True)
    worst = z.amin(0)
    found = ensemble.join(each)
    torch.testing.assert_close(found, (worst - worst.mean()) / worst.std(), atol=1e-4, rtol=1e-4)


KEPT = {
    "names": ["a", "b"],
    "gold": "g",
    "ensemble": "mean",
    "content": {"a": "1", "b": "2", "g": "3"},
}


@pytest.mark.parametrize(
    ("now", "differ"),
    [
        ({}, None),
        ({"content": {"a": "9", "b": "2", "g": "3"}}, "a changed since"),
        ({"content": {"a": "9", "b": "2", "g": "8"}}, "a, g changed since"),
        ({"names": ["c", "b"], "content": {"c": "1", "b": "2", "g": "3"}}, None),  # renamed
        ({"names": ["b", "a"]}, "it was a, b and is b, a"),
        ({"names": ["a"], "content": {"a": "1", "g": "3"}}, "it was a, b and is a"),
        ({"gold": None}, "gold was g and is None"),
        ({"gold": "h", "content": {"a": "1", "b": "2", "h": "3"}}, None),
        ({"gold": "h", "content": {"a": "1", "b": "2", "h": "4"}}, "gold was g and is h"),
        ({"ensemble": "worst"}, "the ensemble was mean and is worst"),
    ],
)
def test_rewards_are_told_by_their_contents_in_order(now, differ):
    assert online_pipeline._other_reward(KEPT, KEPT | now) == differ
    alone = {"names": ["a"], "gold": None, "content": {"a": "1"}}
    old, new = alone | {"ensemble": "mean"}, alone | {"ensemble": None}
    assert online_pipeline._other_reward(old, new) is None  # of one nothing is joined


def test_reports_of_rounds_become_rows_and_a_file(tmp_path):
    rounds = [
        RaftRound(0, 0.5, 0.0, 1.0, kept=3, history=[{"loss": 1.0}]),
        RaftRound(1, 0.75, 0.25, 0.5, gold=2.0),
    ]
    rows = online_pipeline._rows_of_rounds(rounds, "round", tmp_path)
    assert rows[0] == {
        "round": 0, "reward": 0.5, "kl": 0.0, "ended": 1.0, "kept": 3, "constant": 0,
        "unfinished": 0,
    }  # fmt: skip
    assert rows[1]["gold"] == 2.0 and "history" not in rows[1]
    written = read_metrics(tmp_path / "metrics.csv")
    assert [row["step"] for row in written] == [0, 1]
    assert [row["reward"] for row in written] == [0.5, 0.75] and written[1]["gold"] == 2.0


# Files of rewards ---------------------------------------------------------------------------------


def test_a_dataclass_with_postponed_annotations_loads(tmp_path):
    (tmp_path / "json.py").write_text(  # its name is not that of a module that others import
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Rule:\n    weight: float = 2.0\n"
        "def reward(prompts, responses):\n    return [Rule().weight * len(y) for y in responses]\n"
    )
    given = FileReward(tmp_path / "json.py", "reward")
    assert ask(given, ["p"], ["abc"]).tolist() == [6.0]
    assert sys.modules["json"] is json


def test_neighbours_of_one_name_beside_two_rewards_are_not_mixed_up(tmp_path):
    found = []
    for k, late in enumerate((False, True, True)):
        folder = tmp_path / str(k)
        folder.mkdir()
        (folder / "helpers_of_rewards.py").write_text(f"VALUE = {k}\n")
        line = "from helpers_of_rewards import VALUE\n"
        inside = f"    {line}" if late else ""
        (folder / "reward.py").write_text(
            f"{'' if late else line}def reward(prompts, responses):\n{inside}"
            "    return [float(VALUE)] * len(responses)\n"
        )
        found.append(FileReward(folder / "reward.py", "reward"))
    path = list(sys.path)
    for _ in range(2):
        assert [ask(one, ["p"], ["y"]).item() for one in found] == [0.0, 1.0, 2.0]
    assert sys.path == path and "helpers_of_rewards" not in sys.modules


@pytest.mark.parametrize(
    "given, words",
    [
        ("None", "gave None for 2 responses.*'p'.*return"),
        ("[1.0, None]", "gave None for the prompt 'q' and the response 'b'"),
        ("[1.0, float('nan')]", "nan for the prompt 'q'"),
    ],
)
def test_none_is_called_none(tmp_path, given, words):
    (tmp_path / "reward.py").write_text(f"def reward(p, y):\n    return {given}\n")
    with pytest.raises(RewardError, match=words):
        ask(FileReward(tmp_path / "reward.py", "reward"), ["p", "q"], ["a", "b"])
