"""`irlbook train ppo`, `rloo`, `grpo`, `raft` ...: from files to a policy, and clear errors."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from irlbook.lm import models
from irlbook.lm.tokenization import train_tokenizer
from irlbook.posttraining import online_pipeline

PROMPTS = [f"say {word}" for word in ("bus", "cafe", "film", "park", "gym", "zoo")]
TOYS = Path(__file__).parent / "reward_toys.py"
LENGTH = f"{TOYS}:length"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, two reward models on its tokenizer and one on another, prompts, and more files."""
    folder = tmp_path_factory.mktemp("world")
    tokenizer = train_tokenizer(PROMPTS, 300)
    tiny = {"hidden": 16, "layers": 1, "heads": 2, "context": 64}
    models.save(models.tiny_lm(tokenizer, **tiny), tokenizer, folder / "start")
    for seed in (1, 2):
        loaded = models.load_reward_model(folder / "start", new_head=True, seed=seed)
        models.save(*loaded, folder / f"reward{seed}")
    other = train_tokenizer(["quite another text", *PROMPTS[:2]], 290)
    models.save(models.tiny_lm(other, **tiny), other, folder / "other")
    loaded = models.load_reward_model(folder / "other", new_head=True)
    models.save(*loaded, folder / "stranger")
    with open(folder / "prompts.jsonl", "w") as file:
        file.writelines(json.dumps({"prompt": prompt, "more": 1}) + "\n" for prompt in PROMPTS)
    (folder / "broken.py").write_text("import nothing_of_this_name\n")
    (folder / "nan.py").write_text("def reward(p, y):\n    return [float('nan')] * len(y)\n")
    return folder


@pytest.fixture
def train(world, call, tmp_path):
    """Run `irlbook train METHOD` with a reward on a few samples: (code, out, err)."""

    def run(method, *more, reward=LENGTH, iterations=3, data="prompts.jsonl", model="start"):
        short = ("--samples", 2, "--max-new-tokens", 6, "--prompts", 4, "--out", tmp_path / "run")
        rewards = [reward] if isinstance(reward, str | Path) else reward
        asked = [x for one in rewards for x in ("--reward", one)]
        in_rounds = method in ("raft", "iterative")
        times = ("--rounds" if in_rounds else "--iterations", iterations)
        where = ("--model", world / model, "--data", world / data)
        return call("train", method, *where, *asked, *times, *short, *more)

    return run


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "method, more",
    [
        ("reinforce", ()),
        ("remax", ("--kl", "loss", "--estimator", "k2")),
        ("rloo", ("--reward-workers", 1)),
        ("grpo", ("--epochs", 2)),
        ("grpo", ("--variant", "dr_grpo", "--beta", 0)),
        ("grpo", ("--variant", "dapo", "--clip-high", 0.3)),
        ("ppo", ("--temperature", 0.8)),
    ],
)
def test_every_method_leaves_a_model_and_its_metrics(train, world, tmp_path, method, more):
    code, out, err = train(method, "--gold", LENGTH, *more)
    assert code == 0, err
    assert "6 rows, 6 kept" in out and "reward" in out and f"model: {tmp_path}/run/model" in out
    found = rows(tmp_path / "run")
    assert [row["step"] for row in found] == ["1", "2", "3"]
    assert all(row["gold"] == row["reward"] for row in found)
    trained, _ = models.load_lm(tmp_path / "run" / "model")
    before, _ = models.load_lm(world / "start")
    assert not torch.equal(trained.lm_head.weight, before.lm_head.weight)


def test_the_same_command_goes_on_and_another_reward_is_refused(train, world, tmp_path):
    assert train("rloo")[0] == 0
    whole, kept = rows(tmp_path / "run"), sorted((tmp_path / "run" / "checkpoints").iterdir())
    code, out, _ = train("rloo")
    assert code == 0 and rows(tmp_path / "run") == whole
    assert f"nothing was trained: {tmp_path}/run holds this run already" in out
    assert sorted((tmp_path / "run" / "checkpoints").iterdir()) == kept
    for more in ({"reward": world / "reward1"}, {"iterations": 4}):
        code, _, err = train("rloo", **more)
        assert code == 1 and "--restart" in err or "resume=False" in err
    code, _, err = train("rloo", "--restart", reward=world / "reward1")
    assert code == 0, err


def test_a_killed_run_says_from_where_it_goes_on_and_a_new_one_does_not(train, tmp_path):
    often = ("--checkpoint-every", 1)
    _, out, err = train("rloo", *often)
    assert "going on" not in err and "next: irlbook sample" in out
    whole = rows(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000003")  # as if killed before it
    code, out, err = train("rloo", *often)
    assert code == 0 and "going on from iteration 2 of 3" in err and "nothing was" not in out
    assert [row["reward"] for row in rows(tmp_path / "run")] == [row["reward"] for row in whole]


def test_raft_trains_in_rounds(train, tmp_path):
    code, out, err = train("raft", "--batch-size", 2, "--max-new-tokens", 30, iterations=1)
    if code:  # an untrained model seldom ends; then the mend is named
        assert "max_new_tokens" in err
        return
    assert [row["step"] for row in rows(tmp_path / "run")] == ["0", "1"]
    models.load_lm(tmp_path / "run" / "model")


def test_iterative_dpo_trains_in_rounds_and_a_finished_run_is_not_replaced(train, world, tmp_path):
    more = ("--batch-size", 2, "--max-new-tokens", 8, "--gold", LENGTH)
    code, out, err = train("iterative", *more, iterations=1)
    assert code == 0, err
    found = rows(tmp_path / "run")
    assert [row["step"] for row in found] == ["0", "1"] and "pairs" in found[0]
    assert "pairs" not in out.split("last:")[1]  # the last round only measures
    trained, _ = models.load_lm(tmp_path / "run" / "model")
    before, _ = models.load_lm(world / "start")
    assert not torch.equal(trained.lm_head.weight, before.lm_head.weight)
    code, _, err = train("iterative", *more, iterations=1)
    assert code == 1 and "holds a finished run" in err and "--restart" in err
    assert train("iterative", *more, "--restart", iterations=1)[0] == 0
    assert rows(tmp_path / "run") == found


def test_saved_reward_models_alone_and_as_an_ensemble(train, world, tmp_path):
    code, _, err = train("rloo", "--gold", LENGTH, reward=world / "reward1", iterations=2)
    assert code == 0, err
    members = [world / "reward1", world / "reward2"]
    code, _, err = train("rloo", "--ensemble", "worst", "--restart", reward=members, iterations=2)
    assert code == 0, err
    assert abs(float(rows(tmp_path / "run")[0]["reward"])) < 3  # in units of its spread


def test_an_adapter_is_trained_and_loaded(train, tmp_path):
    pytest.importorskip("peft")
    code, _, err = train("ppo", "--lora", 2, iterations=2)
    assert code == 0, err
    assert (tmp_path / "run" / "model" / "adapter_config.json").exists()
    models.load_lm(tmp_path / "run" / "model")


@pytest.mark.parametrize(
    "reward, named",
    [
        ("no/such/file.py:length", "there is no file no/such/file.py"),
        (f"{TOYS}:lenght", "does not exist.*ends_its_process, length"),
        (f"{TOYS}:not_a_function", "is no function"),
        (str(TOYS), "name the function"),
        ("{world}/broken.py:reward", "ModuleNotFoundError"),
        ("{world}/nan.py:reward", "nan for the prompt 'say"),
        (f"{TOYS}:one_too_many", "one number a response"),
        ("{world}/no_model", "no folder"),
        ("{world}/start", "not a reward model"),
        ("{world}/stranger", "another tokenizer"),
        (["{world}/reward1", LENGTH], "a function stands alone"),
    ],
)
def test_a_bad_reward_is_one_clear_message(train, world, reward, named):
    given = [reward] if isinstance(reward, str) else reward
    code, _, err = train("rloo", reward=[one.format(world=world) for one in given])
    assert code == 1 and "Traceback" not in err
    assert pytest.importorskip("re").search(named, err), err


def test_other_bad_options_are_one_clear_message(train, world, tmp_path):
    for method, more, named in (
        ("rloo", ("--beta", -1), "beta"),
        ("grpo", ("--variant", "ppo"), "'ppo' is not one of 'grpo'"),
        ("ppo", ("--max-new-tokens", 100), "leave no room"),
        ("ppo", ("--device", "tpu"), "tpu"),
        ("rloo", ("--vllm",), "vllm"),
    ):
        code, _, err = train(method, *more)
        assert code != 0 and named in err, err
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "mine.txt").touch()
    code, _, err = train("rloo")
    assert code == 1 and "Give another folder" in err


def test_a_stop_is_reported_and_an_interruption_says_how_to_go_on(train, monkeypatch):
    code, out, err = train("rloo", "--learning-rate", 0.3, "--beta", 0, "--max-kl", 0.5)
    assert code == 0 and "stopped: iteration" in err and "model: " in out

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(online_pipeline, "train_policy", interrupted)
    code, _, err = train("rloo")
    assert code == 130 and "run the same command again" in err
