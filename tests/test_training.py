"""The loop: order, accumulation, resume, several processes, and what goes wrong."""

import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ranks import run_two
from training_toys import Bigram, random_groups

from irlbook import training
from irlbook.errors import (
    CheckpointError,
    DeviceUnavailableError,
    DivergedTrainingError,
    FlatLossWarning,
    InvalidHyperparameterError,
    ResponseError,
    ResumeMismatchError,
    ShapeError,
)
from irlbook.lm.logprobs import sequence_logps
from irlbook.lm.trees import collate
from irlbook.posttraining import dpo, sft
from irlbook.training import TrainingConfig, checkpoints, read_metrics, train

PAIRS = random_groups(24, 2)
QUIET = {"progress": False, "tensorboard": False}
CLOCK = {"tokens_per_second"}


def config(**changes) -> TrainingConfig:
    return TrainingConfig(**{"batch_size": 8, "epochs": 4, "learning_rate": 0.05} | QUIET | changes)


def numbers(history) -> list[dict]:
    """Rows without the clock."""
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in history]


def objectives() -> dict:
    """name: (groups, objective, extra)"""
    shown = random_groups(24, 1, seed=1)
    unpaired = dpo.kto_groups([(p, a[0]) for p, a in shown])
    good = {"desirable": torch.arange(24) % 3 > 0}
    kto = dpo.objective(dpo.PreferenceConfig("kto", beta=0.5))
    found = {
        "sft": (shown, sft.objective(shown), None),
        "kto": (unpaired, kto, good),
        "conservative": (PAIRS, dpo.objective(dpo.PreferenceConfig(label_smoothing=0.1)), None),
        "ipo by length": (
            PAIRS,
            dpo.objective(dpo.PreferenceConfig("ipo", length_normalised=True)),
            None,
        ),
        "exo": (PAIRS, dpo.objective(dpo.PreferenceConfig("exo", label_smoothing=0.1)), None),
        "slic held": (PAIRS, dpo.objective(dpo.PreferenceConfig("slic", sft_weight=0.1)), None),
    }
    for loss in ("dpo", "robust", "ipo", "rso", "slic", "simpo"):
        found[loss] = (PAIRS, dpo.objective(dpo.PreferenceConfig(loss)), None)
    return found


OBJECTIVES = objectives()


# Order --------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
def test_each_example_comes_once_a_pass(n, batch_size, bucket, seed):
    groups = [([1], [[1] * (i % 7 + 1)]) for i in range(n)]
    settings = TrainingConfig(batch_size=batch_size, bucket=bucket, seed=seed, epochs=3)
    steps = training.schedule(groups, settings)
    size = min(n, batch_size)
    assert {len(step) for step in steps} == {size} and len(steps) == 3 * (n // size)
    for passed in np.split(np.concatenate(steps), 3):
        assert len(set(passed.tolist())) == len(passed) == n - n % size
    again = training.schedule(groups, settings)
    assert all((a == b).all() for a, b in zip(steps, again, strict=True))
    five = TrainingConfig(batch_size=batch_size, bucket=bucket, seed=seed, steps=5)
    assert len(training.schedule(groups, five)) == 5


def test_bucketing_spares_padding_and_another_seed_is_another_order():
    sizes = np.random.default_rng(0).integers(1, 200, 512)
    groups = [([1], [[1] * size]) for size in sizes]

    def padded(bucket: int) -> int:
        steps = training.schedule(groups, config(bucket=bucket, epochs=1))
        return sum(len(step) * sizes[step].max() for step in steps)

    assert padded(16) < 0.65 * padded(1)
    orders = [np.concatenate(training.schedule(groups, config(seed=seed))) for seed in (0, 1)]
    assert (orders[0] != orders[1]).any()


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=40),
    st.integers(1, 100),
    st.integers(1, 4),
)
def test_micro_batches_share_a_step_out(sizes, max_tokens, processes):
    sizes = np.array(sizes)
    rows = [[i] for i in range(len(sizes))]
    shares = [
        training.micro_batches(rows, sizes, max_tokens, rank, processes)
        for rank in range(processes)
    ]
    counted = [i for share in shares for part, weight in share for (i,) in part if weight]
    assert sorted(counted) == list(range(len(sizes)))
    assert len({len(share) for share in shares}) == 1  # wrappers wait for one another
    for share in shares:
        for part, _ in share:
            longest = max(sizes[row].max() for row in part)
            assert len(part) == 1 or len(part) * longest <= max_tokens


def test_learning_rate_climbs_and_falls():
    settings = config(warmup=0.1, final_learning_rate=0.1, learning_rate=2.0)
    rates = [training.learning_rate(step, 100, settings) for step in range(101)]
    assert rates[0] > 0 and np.diff(rates[:11]).min() > 0 and np.diff(rates[10:]).max() < 0
    assert max(rates) == rates[10] == 2.0 and rates[100] == pytest.approx(0.2)
    assert training.learning_rate(0, 1, config(warmup=0)) == 0.05


# One step -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_how_a_step_is_cut_changes_nothing(name):
    """Gradient accumulation on ragged data equals the full batch, and so do the weights after."""
    groups, objective, extra = OBJECTIVES[name]
    runs = []
    for max_tokens in (10**6, 1, 25, 60, 100):
        model = Bigram()
        settings = config(steps=3, max_tokens=max_tokens)
        result = train(model, groups, objective, settings, extra=extra)
        runs.append((result, model.table.detach()))
    for result, table in runs[1:]:
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(
                result.column(name), runs[0][0].column(name), rtol=1e-10, atol=1e-12
            )
        torch.testing.assert_close(table, runs[0][1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["dpo", "ipo by length", "kto"])
def test_sharing_prompts_changes_no_number_of_a_step(name):
    """Four pairs a prompt, in rows of their own or in the prompt's one row."""
    groups, objective, extra = OBJECTIVES[name]
    groups = [(groups[i // 4][0], answers) for i, (_, answers) in enumerate(groups)]
    if extra is not None:  # labels in an order that is not the rows'
        extra = {name: values.flip(0) for name, values in extra.items()}
    runs = []
    for share, max_tokens in ((1, 10**6), (4, 10**6), (3, 150), (9, 1)):
        model = Bigram()
        settings = config(steps=2, batch_size=24, share_prompts=share, max_tokens=max_tokens)
        result = train(model, groups, objective, settings, extra=extra)
        runs.append((result, model.table.detach()))
    for result, table in runs[1:]:
        for column in ("loss", "grad_norm", "accuracy"):
            np.testing.assert_allclose(result.column(column), runs[0][0].column(column), rtol=1e-10)
        torch.testing.assert_close(table, runs[0][1], rtol=0, atol=1e-10)


def test_examples_of_a_prompt_come_together():
    groups = [([i % 6], [[1] * (i % 5 + 1)]) for i in range(24)]
    settings = config(batch_size=8, share_prompts=4, epochs=2)
    steps = training.schedule(groups, settings)
    for passed in (steps[:3], steps[3:]):
        assert sorted(np.concatenate(passed).tolist()) == list(range(24))
    for step in steps:
        rows = training.same_prompt(groups, step, 4)
        assert len(rows) == 2  # 8 examples, 4 a prompt
        assert all(len({groups[i][0][0] for i in row}) == 1 for row in rows)
    assert training.same_prompt(groups, range(24), 3)[0] == [0, 6, 12]
    assert training.same_prompt(groups, [5, 11, 2], 1) == [[5], [11], [2]]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_step_lowers_the_loss_of_its_own_batch(name):
    groups, objective, extra = OBJECTIVES[name]
    settings = config(steps=2, batch_size=len(groups), bucket=1, warmup=0, learning_rate=1e-3)
    loss = train(Bigram(), groups, objective, settings, extra=extra).column("loss")
    assert loss[1] < loss[0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_known_start_is_the_loss_at_the_start(name):
    groups, objective, extra = OBJECTIVES[name]
    first = train(Bigram(), groups, objective, config(steps=1), extra=extra).history[0]
    if objective.start is not None:
        assert first["loss"] == pytest.approx(objective.start, abs=1e-12)
    if "margin" in first and objective.needs_reference:
        assert first["margin"] == pytest.approx(0, abs=1e-12) and first["accuracy"] == 0.5


def test_loss_and_gradient_are_those_written_out():
    """The step's gradient norm, from the formula over the whole batch in one piece."""
    model = Bigram(seed=3)
    tree = collate(PAIRS)
    logps = sequence_logps(model(tree), tree.lengths).view(-1, 2)
    other = Bigram(seed=4)
    with torch.no_grad():
        reference = sequence_logps(other(tree), tree.lengths).view(-1, 2)
    h = 0.1 * ((logps - reference)[:, 0] - (logps - reference)[:, 1])
    loss = -torch.log(torch.sigmoid(h)).mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    settings = config(steps=1, batch_size=24, max_tokens=50)
    row = train(model, PAIRS, dpo.objective(), settings, reference=reference).history[0]
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-12)
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-12)
    assert row["margin"] == pytest.approx(h.mean().item(), rel=1e-10)
    assert row["chosen_logp"] == pytest.approx(logps[:, 0].mean().item(), rel=1e-12)


def test_sft_is_divided_by_one_constant_not_by_each_batch():
    groups = [([1], [[2] * n]) for n in (1, 1, 9, 9)]
    objective = sft.objective(groups)
    rows = train(Bigram(), groups, objective, config(steps=2, batch_size=2, bucket=2)).history
    tree = collate([groups[0]])
    token = Bigram()(tree)[0].item()
    short = next(row for row in rows if row["logp"] == pytest.approx(token, abs=0.5))
    assert short["loss"] == pytest.approx(-short["logp"] / 5)  # 5 tokens a response, over the data


def test_long_gradients_are_scaled_down():
    free, held = Bigram(), Bigram()
    groups, objective, _ = OBJECTIVES["sft"]
    plain = config(steps=1, warmup=0, learning_rate=1e-3)
    a = train(free, groups, objective, plain).history[0]
    strict = config(steps=1, warmup=0, learning_rate=1e-3, max_grad_norm=1e-9)
    b = train(held, groups, objective, strict).history[0]
    assert a["grad_norm"] == b["grad_norm"] > 1e-9  # the norm reported is that before
    start = Bigram().table
    assert (held.table - start).abs().max() < 0.2 * (free.table - start).abs().max()


def test_scores_do_not_depend_on_the_batch():
    model = Bigram()
    whole = training.score(model, PAIRS, 2, config(max_tokens=10**6))
    alone = training.score(model, PAIRS, 2, config(max_tokens=1))
    torch.testing.assert_close(whole, alone, rtol=1e-14, atol=0)
    expected = [[sum_of(model, (p, [a])) for a in answers] for p, answers in PAIRS]
    torch.testing.assert_close(whole, torch.tensor(expected, dtype=torch.float64))


def sum_of(model, group) -> float:
    return model(collate([group])).sum().item()


# Dropout and the reference ------------------------------------------------------------------------


class Dropped(Bigram):
    """A bigram with dropout in front of its table, as a module and as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)
        self.attention_dropout = 0.5

    def forward(self, tree):
        if self.training and self.attention_dropout:
            raise AssertionError("the number was not seen")
        return self.drop(super().forward(tree))


def test_dpo_starts_at_log_2_twice_with_dropout_in_the_model():
    model = Dropped()
    for _ in range(2):  # the second run's reference is what the first one made
        rows = train(model, PAIRS, dpo.objective(), config(steps=6)).history
        assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-12)
        assert rows[-1]["loss"] < math.log(2) - 1e-3
    assert not model.training


def test_dropout_is_refused_beside_a_reference_and_repeats_without_one():
    with pytest.raises(InvalidHyperparameterError, match="dropout and a reference"):
        train(Dropped(), PAIRS, dpo.objective(), config(dropout=True))
    groups, objective, _ = OBJECTIVES["sft"]
    before = torch.random.get_rng_state()
    runs = []
    for _ in range(2):
        model = Dropped()
        model.attention_dropout = 0.0
        runs.append(train(model, groups, objective, config(steps=4, dropout=True)).column("loss"))
    assert (runs[0] == runs[1]).all()
    assert torch.equal(before, torch.random.get_rng_state())
    assert (runs[0] != train(Bigram(), groups, objective, config(steps=4)).column("loss")).any()


# Resume -------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stopping_at(step: int):
    """An `evaluate` that stops the run."""
    calls = iter(range(10**6))

    def evaluate():
        if next(calls) == step:
            raise Stop
        return {"seen": 1.0}

    return evaluate


def test_many_weights_are_moved_in_one_pass_to_the_same_place(monkeypatch, tmp_path):
    """Fused AdamW against the plain one, decay and all; and it goes on from a checkpoint."""
    groups, objective, _ = OBJECTIVES["dpo"]
    settings = config(checkpoint_every=3, evaluate_every=1, weight_decay=0.1)
    plain = Bigram()
    train(plain, groups, objective, settings)
    assert not training.adamw(plain, settings, torch.device("cpu")).defaults["fused"]
    monkeypatch.setattr(training.loop, "FUSED", 1)
    assert training.adamw(plain, settings, torch.device("cpu")).defaults["fused"]
    whole, again = Bigram(), Bigram()
    train(whole, groups, objective, settings)
    assert (whole.table - plain.table).abs().max() < 1e-12
    assert (whole.table - Bigram().table).abs().max() > 0.1
    with pytest.raises(Stop):
        train(Bigram(), groups, objective, settings, out=tmp_path, evaluate=stopping_at(4))
    train(again, groups, objective, settings, out=tmp_path, evaluate=lambda: {"seen": 1.0})
    assert again.table.equal(whole.table) and again.shift.equal(whole.shift)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_what_a_run_leaves_is_as_open_as_the_users_umask_says(mask, mode, tmp_path):
    groups, objective, extra = OBJECTIVES["dpo"]
    before = os.umask(mask)
    try:
        train(Bigram(), groups, objective, config(checkpoint_every=3), extra=extra, out=tmp_path)
    finally:
        os.umask(before)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"reference.safetensors", "weights.safetensors"} < {path.name for path in left}
    assert {path.stat().st_mode & 0o777 for path in left} == {mode}


@pytest.mark.parametrize("name", ["sft", "dpo", "kto"])
@pytest.mark.parametrize("stop", [0, 2, 3, 7])
def test_a_stopped_run_goes_on_to_the_same_numbers(name, stop, tmp_path):
    groups, objective, extra = OBJECTIVES[name]
    settings = config(checkpoint_every=3, evaluate_every=1)
    whole = Bigram()
    expected = train(
        whole, groups, objective, settings, extra=extra, evaluate=lambda: {"seen": 1.0}
    )
    broken, again = Bigram(), Bigram()
    with pytest.raises(Stop):
        train(broken, groups, objective, settings, extra=extra, out=tmp_path,
              evaluate=stopping_at(stop))  # fmt: skip
    result = train(again, groups, objective, settings, extra=extra, out=tmp_path,
                   evaluate=lambda: {"seen": 1.0})  # fmt: skip
    assert numbers(result.history) == numbers(expected.history)
    assert numbers(read_metrics(tmp_path / "metrics.csv")) == numbers(expected.history)
    assert torch.equal(again.table, whole.table) and torch.equal(again.shift, whole.shift)
    third = Bigram()
    done = train(third, groups, objective, settings, extra=extra, out=tmp_path)
    assert torch.equal(third.table, whole.table)  # nothing was left to do
    assert numbers(done.history) == numbers(expected.history)


KILLED = """
import os, signal, sys, time, random
sys.path[:0] = [{tests!r}]
import torch
from irlbook import training
from irlbook.training import distributed
from irlbook.posttraining import dpo
from training_toys import Bigram, random_groups
distributed.accelerator("cpu", "float32")  # import before the forks
torch.set_num_threads(1)
draw = random.Random(5)
kills = 0
while True:
    child = os.fork()
    if child == 0:
        settings = training.TrainingConfig(
            epochs=10, batch_size=4, checkpoint_every=2, keep=1, tensorboard=False)
        model = Bigram()
        training.train(model, random_groups(24, 2), dpo.objective(), settings, out=sys.argv[1])
        torch.save(model.state_dict(), sys.argv[1] + "/final.pt")
        os._exit(0)
    if kills < 12:
        time.sleep(draw.uniform(0.01, 0.25))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        kills += 1
    elif os.WEXITSTATUS(status):
        sys.exit("failed")
    else:
        break
print(kills)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_9_at_any_moment_changes_no_number(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(KILLED).format(tests=str(Path(__file__).parent)))
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, str(script), str(out)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    settings = config(epochs=10, batch_size=4, learning_rate=1e-3)
    model = Bigram()
    expected = train(model, random_groups(24, 2), dpo.objective(), settings)
    assert numbers(read_metrics(out / "metrics.csv")) == numbers(expected.history)
    assert torch.equal(torch.load(out / "final.pt")["table"], model.table)
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-00000060"]


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    settings = config(checkpoint_every=3)
    expected = train(Bigram(), PAIRS, dpo.objective(), settings).history
    real, calls = checkpoints.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) == 5:  # the reference, a checkpoint's two, the next one's second
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(CheckpointError, match="make room"):
        train(Bigram(), PAIRS, dpo.objective(), settings, out=tmp_path)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    again = train(Bigram(), PAIRS, dpo.objective(), settings, out=tmp_path).history
    assert numbers(again) == numbers(expected)
    calls[:] = [None] * 4
    with pytest.raises(CheckpointError, match="reference"):
        train(Bigram(), PAIRS, dpo.objective(), settings, out=tmp_path, resume=False)


def test_another_run_in_the_folder_is_named(tmp_path):
    train(Bigram(), PAIRS, dpo.objective(), config(steps=2), out=tmp_path)
    with pytest.raises(ResumeMismatchError, match="learning_rate was 0.05 and is 0.01"):
        train(Bigram(), PAIRS, dpo.objective(), config(steps=2, learning_rate=0.01), out=tmp_path)
    with pytest.raises(ResumeMismatchError, match="another run: beta was 0.1 and is 0.3. Give"):
        other = dpo.objective(dpo.PreferenceConfig(beta=0.3))
        train(Bigram(), PAIRS, other, config(steps=2), out=tmp_path)
    with pytest.raises(ResumeMismatchError, match="examples are others"):
        train(Bigram(), PAIRS[:-1], dpo.objective(), config(steps=2), out=tmp_path)
    memory = config(steps=2, max_tokens=7, keep=9)
    train(Bigram(), PAIRS, dpo.objective(), memory, out=tmp_path)  # another micro-batch will do
    fresh = config(steps=3, learning_rate=0.01)
    result = train(Bigram(), PAIRS, dpo.objective(), fresh, out=tmp_path, resume=False)
    assert len(result.history) == 3


def test_a_broken_checkpoint_is_named(tmp_path):
    settings = config(checkpoint_every=4)
    train(Bigram(), PAIRS, dpo.objective(), settings, out=tmp_path)
    last = max((tmp_path / "checkpoints").iterdir())
    assert last.name == "step-00000012"
    (last / "moments.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="step-00000012.*Remove this folder"):
        train(Bigram(), PAIRS, dpo.objective(), settings, out=tmp_path)
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    result = train(Bigram(), PAIRS, dpo.objective(), settings, out=tmp_path)
    assert len(result.history) == 12
    (tmp_path / "reference.safetensors").unlink()
    with pytest.raises(CheckpointError, match="moved on from the reference"):
        train(Bigram(), PAIRS, dpo.objective(), settings, out=tmp_path)


def test_metrics_survive_a_cut_row(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,extra\n1,0.5,\n2,0.25,3\n3,0.1")
    rows = read_metrics(path)
    assert rows == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "extra": 3.0}]
    path.write_text("")
    assert read_metrics(path) == []


def test_tensorboard_gets_the_same_rows(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = config(steps=3, tensorboard=True)
        rows = train(Bigram(), PAIRS, dpo.objective(), settings, out=tmp_path).history
        board = events.EventAccumulator(str(tmp_path)).Reload()
    seen = [event.value for event in board.Scalars("loss")]
    np.testing.assert_allclose(seen, [row["loss"] for row in rows], rtol=1e-6)


def test_the_bar_is_off_where_there_is_no_terminal(capsys):
    train(Bigram(), PAIRS, dpo.objective(), config(steps=2, progress=True))
    assert capsys.readouterr() == ("", "")


# Several processes --------------------------------------------------------------------------------

RANKS = """
import json, os, sys
sys.path[:0] = [{tests!r}]
import torch
torch.set_num_threads(1)
from irlbook.training.distributed import unshard
from irlbook.posttraining import dpo
from irlbook.training import TrainingConfig, evaluate_objective, train
from training_toys import Bigram, random_groups
found = []
for loss, max_tokens, shard in {runs}:
    groups, extra = random_groups(23, 2), None
    if loss == "kto":
        groups = dpo.kto_groups([(p, a[0]) for p, a in groups])
        extra = {{"desirable": torch.arange(23) % 3 > 0}}
    model = Bigram()
    settings = TrainingConfig(steps=3, batch_size=7, max_tokens=max_tokens, shard=shard,
        tensorboard=False, checkpoint_every=2)
    objective = dpo.objective(dpo.PreferenceConfig(loss))
    check = evaluate_objective(model, groups, objective, settings) if shard else None
    result = train(model, groups, objective, settings, extra=extra, out=sys.argv[2] + loss,
                   evaluate=check)
    rows = [[row["loss"], row["grad_norm"]] for row in result.history if row["step"]]
    if shard:
        model.reshard()
        assert model.table.to_local().shape[0] == model.table.shape[0] // 2
        model.unshard()  # as an evaluation leaves it
        unshard(model)
    found.append([rows, model.state_dict()["table"].tolist()])
import torch.distributed as dist
assert dist.get_world_size() == 2 and dist.get_backend() == "gloo"
dist.destroy_process_group()
with open(sys.argv[1] + "." + os.environ["RANK"], "w") as file:
    json.dump(found, file)
"""


RUNS = [("dpo", 40, False), ("kto", 1, False), ("simpo", 10**6, False), ("ipo", 40, True)]


def processes_of(checkpoint):
    """How many made the step, as the checkpoint says."""
    return json.loads((checkpoint / "state.json").read_text())["processes"]


def test_two_processes_give_the_numbers_of_one(tmp_path):
    """With whole weights each (DDP), and with the weights split (FSDP); resumed by one process."""
    script = tmp_path / "ranks.py"
    script.write_text(RANKS.format(tests=str(Path(__file__).parent), runs=RUNS))
    run_two(script, tmp_path / "found", tmp_path / "run")
    together = [json.loads((tmp_path / f"found.{rank}").read_text()) for rank in (0, 1)]
    for k, (loss, max_tokens, _) in enumerate(RUNS):
        groups, extra = random_groups(23, 2), None
        if loss == "kto":
            groups = dpo.kto_groups([(p, a[0]) for p, a in groups])
            extra = {"desirable": torch.arange(23) % 3 > 0}
        model = Bigram()
        settings = config(
            steps=3, epochs=1, batch_size=7, max_tokens=max_tokens, learning_rate=1e-3
        )
        objective = dpo.objective(dpo.PreferenceConfig(loss))
        result = train(model, groups, objective, settings, extra=extra)
        rows = [[row["loss"], row["grad_norm"]] for row in result.history]
        checkpoints = tmp_path / f"run{loss}" / "checkpoints"
        assert processes_of(checkpoints / "step-00000003") == 2
        shutil.rmtree(checkpoints / "step-00000003")
        resumed = Bigram()
        train(resumed, groups, objective, settings, extra=extra, out=tmp_path / f"run{loss}")
        assert processes_of(checkpoints / "step-00000002") == 2
        assert processes_of(checkpoints / "step-00000003") == 1
        torch.testing.assert_close(resumed.table, model.table, rtol=0, atol=1e-12)
        for found in together:
            np.testing.assert_allclose(found[k][0], rows, rtol=1e-12)
            np.testing.assert_allclose(found[k][1], model.table.detach(), rtol=0, atol=1e-12)


# What goes wrong ----------------------------------------------------------------------------------


class Poisoned(Bigram):
    """Not a number wherever token 11 is the target."""

    def forward(self, tree):
        return torch.where(tree.target == 11, math.nan, 1.0) * super().forward(tree)


def test_nan_stops_names_the_example_and_spares_the_weights(tmp_path):
    groups = [([1], [[2, 3], [4]]) for _ in range(16)]
    groups[5] = ([1], [[2, 11], [4]])
    model = Poisoned()
    settings = config(batch_size=4, bucket=1, max_tokens=4, checkpoint_every=1, epochs=3)
    reference = torch.zeros(16, 2, dtype=torch.float64) - 3
    with pytest.raises(DivergedTrainingError, match=r"examples \[5\]") as caught:
        train(model, groups, dpo.objective(), settings, reference=reference, out=tmp_path)
    assert model.table.isfinite().all() and model.table.grad is None
    rows = read_metrics(tmp_path / "metrics.csv")
    assert f"step {len(rows) + 1}:" in str(caught.value)
    assert all(math.isfinite(row["loss"]) for row in rows)


class Endless(Bigram):
    """A finite value with an infinite gradient."""

    def forward(self, tree):
        return super().forward(tree) + torch.sqrt(self.shift.sum() ** 2)


def test_an_infinite_gradient_stops_too():
    groups, objective, _ = OBJECTIVES["sft"]
    with pytest.raises(DivergedTrainingError, match="gradient alone.*there is no checkpoint"):
        train(Endless(), groups, objective, config())


def test_a_flat_loss_is_said_once_with_its_causes():
    same = [(prompt, [answers[0]] * 2) for prompt, answers in PAIRS]
    settings = config(epochs=20, patience=5)
    with pytest.warns(FlatLossWarning, match=r"0\.6931.*learning rate.*copy.*same") as caught:
        train(Bigram(), same, dpo.objective(), settings)
    assert len(caught) == 1


def test_no_warning_where_the_loss_moves(recwarn):
    train(Bigram(), PAIRS, dpo.objective(), config(epochs=20, patience=2, warmup=0))
    assert not [w for w in recwarn if w.category is FlatLossWarning]


def test_the_device_is_never_chosen_silently(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceUnavailableError, match="PyTorch sees none"):
        train(Bigram(), PAIRS, dpo.objective(), config(device="cuda"))
    with pytest.raises(DeviceUnavailableError, match="use cpu or cuda"):
        train(Bigram(), PAIRS, dpo.objective(), config(device="mps"))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: train(Bigram(), [], dpo.objective()), ResponseError, "no examples"),
        (
            lambda: train(Bigram(), random_groups(3, 1), dpo.objective()),
            ResponseError,
            "example 0 has 1 responses",
        ),
        (
            lambda: train(Bigram(), PAIRS, dpo.objective(), config(), extra={"m": torch.ones(3)}),
            ShapeError,
            "3 rows for 24",
        ),
        (
            lambda: train(Bigram(), PAIRS, dpo.objective(), config(), reference=torch.ones(24)),
            ShapeError,
            "one number a response",
        ),
        (
            lambda: train(Bigram().requires_grad_(False), PAIRS, dpo.objective(), config()),
            InvalidHyperparameterError,
            "requires a gradient",
        ),
        (lambda: dpo.kto_groups([([1], [2])]), ResponseError, "two examples"),
        (lambda: dpo.PreferenceConfig("ppo"), InvalidHyperparameterError, "choose from dpo"),
        (
            lambda: train(Bigram(), PAIRS, dpo.objective(), config(shard=True)),
            InvalidHyperparameterError,
            "torchrun",
        ),
        (lambda: config(batch_size=0), InvalidHyperparameterError, "batch_size"),
        (lambda: config(learning_rate=0), InvalidHyperparameterError, "learning_rate"),
        (lambda: config(steps=0), InvalidHyperparameterError, "steps"),
        (lambda: config(warmup=1), InvalidHyperparameterError, "shares"),
        (lambda: config(precision="float16"), InvalidHyperparameterError, "bfloat16"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_kto_lends_every_response_to_another_prompt():
    shown = [(p, a[0]) for p, a in random_groups(9, 1)]
    groups = dpo.kto_groups(shown, seed=3)
    lent = [shown.index(next(e for e in shown if e[1] == answers[1])) for _, answers in groups]
    assert sorted(lent) == list(range(9))
    assert all(lender != i for i, lender in enumerate(lent))
    assert all(g[0] == s[0] and g[1][0] == s[1] for g, s in zip(groups, shown, strict=True))


def test_settings_are_quick_to_import():
    told = (
        "import sys, irlbook.training, irlbook.training.config, irlbook.posttraining.configs; "
        "print(sorted({'torch', 'transformers', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
