"""The cost calculator: against models, tensors and the profiler."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from ranks import run_two
from transformers import DynamicCache, GPT2Config

from irlbook.errors import (
    DataNotFoundError,
    InvalidHyperparameterError,
    UnsupportedModelError,
)
from irlbook.lm import costs, models
from irlbook.lm.logprobs import token_logps
from irlbook.lm.trees import collate
from irlbook.posttraining import adapter_study, cost_study, shard_study
from irlbook.stats import power_of, prompts_needed
from irlbook.training.config import TrainingConfig
from irlbook.training.loop import schedule

SIZES = [
    {"hidden": 32, "layers": 2, "heads": 4, "tied": False},
    {"hidden": 48, "layers": 3, "heads": 4, "kv_heads": 2, "tied": True},
    {"kind": "qwen2", "hidden": 32, "layers": 1, "heads": 2, "kv_heads": 1},
]


@pytest.mark.parametrize("sizes", SIZES)
def test_parameters_are_those_of_the_model(sizes):
    model = models.tiny_lm(150, **sizes)
    sized = costs.Architecture.of(model.config)
    assert sized.parameters == sum(p.numel() for p in model.parameters())


def test_another_kind_of_model_is_refused():
    with pytest.raises(UnsupportedModelError, match="gpt2"):
        costs.Architecture.of(GPT2Config())


def test_an_adapter_has_as_many_parameters_as_peft_makes():
    pytest.importorskip("peft")
    model = models.tiny_lm(150, hidden=48, layers=3, heads=4, kv_heads=2)
    sized = costs.Architecture.of(model.config)
    adapted = models.add_lora(model, rank=5)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert costs.adapter_parameters(sized, 5) == trained


@pytest.mark.parametrize("sizes", SIZES)
def test_the_cache_is_as_large_as_that_of_transformers(sizes):
    model = models.tiny_lm(150, **sizes)
    cache = DynamicCache()
    model(input_ids=torch.ones(3, 7, dtype=torch.long), past_key_values=cache, use_cache=True)
    held = sum(
        t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values)
    )
    assert costs.cache_bytes(costs.Architecture.of(model.config), 3 * 7, 4) == held


@pytest.mark.parametrize("sizes", SIZES)
def test_operations_are_those_that_pytorch_counts(sizes):
    from torch.utils.flop_counter import FlopCounterMode

    model = models.tiny_lm(150, **sizes)
    model.set_attn_implementation("eager")
    sized = costs.Architecture.of(model.config)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model(input_ids=torch.ones(2, 9, dtype=torch.long))
    ours = costs.forward_flops(sized, [(0, [9])] * 2)
    norms = 2 * 18 * sized.layers * (sized.layer - sum(a * b for a, b in sized.matrices.values()))
    unmasked = 4 * sized.layers * sized.heads * sized.head_size * 2 * 9 * 9 / 2
    assert counted.get_total_flops() == pytest.approx(ours - norms + unmasked)
    assert costs.training_flops(sized, [(4, [3, 2])]) == 3 * costs.forward_flops(
        sized, [(4, [3, 2])]
    )


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("rank", [None, 5])
@pytest.mark.parametrize("sizes", SIZES)
def test_operations_of_a_step_are_those_that_pytorch_counts(sizes, rank, checkpointing):
    """Forwards, backwards, and what is computed again; but for norms and the mask, as above."""
    from torch.utils.flop_counter import FlopCounterMode

    model = models.tiny_lm(150, **sizes)
    model.set_attn_implementation("eager")
    sized = costs.Architecture.of(model.config)
    if checkpointing:
        cost_study.checkpoint_layers(model)
    if rank:
        pytest.importorskip("peft")
        model = models.add_lora(model, rank=rank)
    model.train(checkpointing)
    with FlopCounterMode(display=False) as counted:
        logits = model(input_ids=torch.ones(2, 9, dtype=torch.long), use_cache=False).logits
        logits.log_softmax(-1)[..., 0].mean().backward()
    ours = costs.training_flops(sized, [(0, [9])] * 2, rank=rank, checkpointing=checkpointing)
    matrices = sum(a * b for a, b in sized.matrices.values())
    small = 2 * 18 * sized.layers * (sized.layer - matrices)  # norms and biases, once
    passes = (3 if rank is None else 2) + checkpointing
    unmasked = 4 * sized.layers * sized.heads * sized.head_size * 2 * 9 * 9 / 2
    seen = ours - passes * small + (3 + checkpointing) * unmasked
    assert counted.get_total_flops() == pytest.approx(seen)


def test_an_adapter_costs_two_thirds_of_a_step_of_a_large_model():
    """Schulman et al. 2025: slightly more than two thirds of full fine-tuning's operations."""
    lengths = [(512, [512])]
    thin = costs.training_flops(LLAMA_7B, lengths, rank=16)
    assert 2 / 3 < thin / costs.training_flops(LLAMA_7B, lengths) < 0.7


def test_a_shared_prompt_is_counted_once():
    sized = costs.Architecture.of(models.tiny_lm(150, **SIZES[0]).config)
    shared = costs.forward_flops(sized, [(100, [10, 10])])
    assert shared < 0.6 * costs.forward_flops(sized, [(100, [10])] * 2)


def test_measured_tensors_are_those_of_the_arithmetic():
    found = cost_study.measure_case(
        vocabulary=300, hidden=64, layers=2, heads=4, tied=False, rows=16, prompt=20, response=20
    )
    assert found["allocated"] == pytest.approx(found["said"], rel=0.1)


STORED = [(part, name) for part, cases in cost_study.PARTS.items() for name in cases]


@pytest.mark.parametrize(("part", "name"), STORED)
def test_stored_measurements_are_of_the_arithmetic_of_today(part, name):
    path = cost_study.Path(cost_study.__file__).parents[1] / "results" / "costs.json"
    row, case = json.loads(path.read_text())[part][name], cost_study.PARTS[part][name]
    sized = {k: case[k] for k in ("hidden", "layers", "heads", "kv_heads", "tied") if k in case}
    with torch.device("meta"):
        config = models.tiny_lm(case["vocabulary"], context=1024, **sized).config
    config.intermediate_size = case.get("intermediate", config.intermediate_size)
    c = costs.Architecture.of(config)
    n, p, r = case["rows"], case["prompt"], case["response"]
    options = {"rank": case.get("rank"), "checkpointing": bool(case.get("checkpointing"))}
    number = cost_study.PRECISIONS[case.get("precision", "float32")]
    said = costs.training_memory(c, n * (p + r), n * r, number, **options).peak
    assert row["said"] == pytest.approx(said, rel=1e-5)
    assert row["flops"] == pytest.approx(
        costs.training_flops(c, [(p, [r])] * n, **options), rel=1e-5
    )


def test_a_part_that_is_measured_again_leaves_the_other_and_its_versions(tmp_path, monkeypatch):
    parts, out = {"one": {"a": {}}, "two": {"b": {}}}, tmp_path / "costs.json"
    monkeypatch.setattr(cost_study, "_in_its_own_process", lambda name: {"allocated": 1.0})
    with pytest.raises(DataNotFoundError, match="without --part"):
        cost_study.main(["--out", str(out), "--part", "two"], parts)
    monkeypatch.setattr(cost_study, "version", lambda _: "old")
    assert cost_study.main(["--out", str(out)], parts) == 0
    monkeypatch.setattr(cost_study, "version", lambda _: "new")
    assert cost_study.main(["--out", str(out), "--part", "two"], parts) == 0
    found = json.loads(out.read_text())
    assert {part: found["made_with"][part]["torch"] for part in parts} == {
        "one": "old",
        "two": "new",
    }
    assert found["one"] == {"a": {"allocated": 1.0}} and set(found["two"]) == {"b"}
    with pytest.raises(SystemExit):
        cost_study.main(["--case", "c"], parts)


@pytest.mark.parametrize(
    "option", [{"checkpointing": True}, {"precision": "bfloat16"}, {"rank": 4}], ids=str
)
def test_what_saves_memory_is_measured_as_it_is_counted(option):
    pytest.importorskip("peft")
    sizes = {"vocabulary": 200, "hidden": 64, "layers": 4, "heads": 4, "tied": False}
    rows = {"rows": 16, "prompt": 20, "response": 20}
    plain = cost_study.measure_case(**sizes, **rows)
    found = cost_study.measure_case(**sizes, **rows, **option)
    assert found["allocated"] == pytest.approx(found["said"], rel=0.15)
    assert found["allocated"] < 0.95 * plain["allocated"]


LLAMA_7B = costs.Architecture(32, 4096, 32, 32, 128, 11_008, 32_000)


def test_states_of_a_known_model():
    """7B with AdamW in mixed precision: 16 bytes per parameter, as Rajbhandari et al. count."""
    assert LLAMA_7B.parameters == 6_738_415_616
    one = costs.training_memory(LLAMA_7B, 0, 0, costs.Precision.mixed())
    assert one.weights + one.gradients + one.optimiser == 16 * LLAMA_7B.parameters
    assert one.activations == one.head == 0


def test_each_stage_splits_one_thing_more():
    make = lambda stage: costs.training_memory(LLAMA_7B, 100, 50, processes=8, stage=stage)  # noqa: E731
    none, first, second, third = (make(stage) for stage in range(4))
    assert first == replace(none, optimiser=none.optimiser / 8)
    assert second == replace(first, gradients=none.gradients / 8)
    assert third == replace(second, weights=none.weights / 8 + LLAMA_7B.layer * 4)
    alone = costs.training_memory(LLAMA_7B, 100, 50, stage=3)
    assert alone == costs.training_memory(LLAMA_7B, 100, 50)


def test_an_adapter_and_checkpoints_save_what_they_should():
    full = costs.training_memory(LLAMA_7B, 1000, 500)
    thin = costs.training_memory(LLAMA_7B, 1000, 500, rank=16)
    assert thin.optimiser == 8 * costs.adapter_parameters(LLAMA_7B, 16) < full.optimiser / 100
    assert thin.weights > full.weights
    again = costs.training_memory(LLAMA_7B, 1000, 500, checkpointing=True)
    assert again.activations + again.again < full.activations / 8 and again.head == full.head
    assert full.peak <= full.accumulated == full.total


def test_the_peak_of_checkpointed_layers_by_hand():
    """Either the logits or the last layer stands beside the boundaries, or the first beside all
    gradients."""
    c, tokens, predicted = costs.Architecture(3, 8, 2, 2, 4, 20, 50), 40, 15
    layer = 6 * 8 + 5 * 8 + 4 * 20
    boundaries = tokens * (3 * 8 + 3 * 8) * 4
    head, again = 3 * predicted * 50 * 4, tokens * layer * 4
    found = costs.training_memory(c, tokens, predicted, checkpointing=True)
    p = c.parameters
    assert (found.activations, found.head, found.again) == (boundaries, head, again)
    assert found.peak == 12 * p + max(boundaries + head, boundaries + again, again + 4 * p)
    assert found.accumulated == 16 * p + boundaries + max(head, again)
    assert found.total == 16 * p + boundaries + head + again


def test_an_accumulated_step_of_checkpointed_layers_holds_what_is_computed():
    """Counted by PyTorch's profiler, of a model whose logits and whose layer are equally large: the
    second micro-batch has the gradients of the first beside it, and never both of these."""
    torch.set_num_threads(1)
    rows, prompt, response = 16, 20, 20
    model = models.tiny_lm(900, hidden=64, layers=4, heads=4, tied=False, context=64)
    cost_study.checkpoint_layers(model)
    model.train()
    groups = [([1] * prompt, [[2] * response])] * rows

    def micro_batch():
        (-token_logps(model, collate(groups, 0)).mean()).backward()

    micro_batch()
    held = sum(8 * p.numel() for p in model.parameters())  # weights and gradients
    counted = held + cost_study._highest(micro_batch)
    said = costs.training_memory(
        costs.Architecture.of(model.config),
        rows * (prompt + response),
        rows * response,
        costs.Precision(optimiser=0),
        checkpointing=True,
    )
    assert said.again == pytest.approx(said.head, rel=0.1)
    assert counted == pytest.approx(said.accumulated, rel=0.15)
    assert said.total > 1.3 * counted


def test_decoding_reads_weights_until_rows_make_it_compute():
    gpu = costs.GPUS["A100 80GB"]
    one, many, crowd = (
        costs.decoding_seconds(LLAMA_7B, 100, 10, rows, gpu) for rows in (1, 8, 4000)
    )
    read = (LLAMA_7B.parameters - LLAMA_7B.embedding) * 2 / gpu.bandwidth / 0.7
    assert one == pytest.approx(10 * read, rel=0.02)
    assert many < 1.2 * one and crowd > 20 * one


@pytest.mark.parametrize(
    "call",
    [
        lambda: costs.adapter_parameters(LLAMA_7B, 0),
        lambda: costs.adapter_parameters(LLAMA_7B, 4, ["head"]),
        lambda: costs.training_memory(LLAMA_7B, 10, 20),
        lambda: costs.training_memory(LLAMA_7B, 10, 5, stage=4),
        lambda: costs.training_memory(LLAMA_7B, 10, 5, processes=0),
        lambda: costs.training_seconds(1e12, costs.GPUS["L4"], 1.5),
        lambda: power_of(0.1, 1.0, 1.0, 0, 4),
        lambda: power_of(0.1, -1.0, 1.0, 10, 4),
        lambda: prompts_needed(0.0, 1.0, 1.0, 4),
        lambda: prompts_needed(0.1, 1.0, 1.0, 4, power=0.01),
        lambda: prompts_needed(0.1, 0.0, 0.0, 4),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(InvalidHyperparameterError):
        call()


def test_power_is_the_share_of_simulated_studies_that_find_it():
    rng = np.random.default_rng(0)
    between, within, prompts, k, runs = 0.6, 1.0, 80, 4, 4000
    for difference in (0.0, 0.2, 0.4):
        mean = difference + between * rng.normal(size=(runs, prompts))
        noise = rng.normal(size=(2, runs, prompts)) * within / np.sqrt(k)
        seen = mean + noise[0] - noise[1]
        z = seen.mean(axis=1) / (seen.std(axis=1, ddof=1) / np.sqrt(prompts))
        want = power_of(difference, between, within, prompts, k)
        assert (np.abs(z) > 1.96).mean() == pytest.approx(want, abs=0.025)


@pytest.mark.parametrize("difference", [0.05, -0.3, 2.0])
def test_the_prompts_needed_are_the_fewest(difference):
    n = prompts_needed(difference, 0.5, 1.0, 8)
    assert power_of(difference, 0.5, 1.0, n, 8) >= 0.8
    assert n == 1 or power_of(difference, 0.5, 1.0, n - 1, 8) < 0.8


def test_a_wrong_activation_count_would_be_seen():
    """The planted bug: without the feed-forward layer much more than 10 % is missing."""
    sized = costs.Architecture.of(models.tiny_lm(300, hidden=64).config)
    kept = costs.training_memory(sized, 640, 320).activations
    bug = costs.training_memory(replace(sized, intermediate=0), 640, 320).activations
    assert bug < 0.7 * kept


# States that are split ----------------------------------------------------------------------------

SHARDED = """
import json, os, sys
import torch
from irlbook.posttraining.shard_study import split_states
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
found = split_states()
torch.distributed.destroy_process_group()
with open(sys.argv[1] + os.environ["RANK"], "w") as file:
    json.dump(found, file)
"""


def test_two_processes_hold_what_the_formula_says(tmp_path):
    """Stage 1 gives whole weights to a process, so its halves are not quite equal; none is lost."""
    (script := tmp_path / "two.py").write_text(SHARDED)
    run_two(script, tmp_path / "found")
    one, other = (json.loads((tmp_path / f"found{rank}").read_text()) for rank in (0, 1))
    assert one == other and one["processes"] == 2
    sized = costs.Architecture.of(models.tiny_lm(531).config)
    assert one["parameters"] == sized.parameters
    for stage, row in one["stages"].items():
        said = costs.training_memory(sized, 0, 0, processes=2, stage=int(stage))
        whole = costs.training_memory(sized, 0, 0)
        gathered = sized.layer * 4 if stage == "3" else 0
        assert row["apart"] < 2e-5  # of steps of 1e-3
        for name in ("weights", "gradients", "optimiser"):
            held = [each[name] for each in row["held"]]
            share = getattr(said, name) - (gathered if name == "weights" else 0)
            copies = 1 if share < getattr(whole, name) else 2
            assert sum(held) == copies * getattr(whole, name)
            assert held == pytest.approx([share] * 2, rel=0.01)


def test_one_process_holds_everything():
    scorer, optimizer = shard_study.stepped(None, steps=1)
    p = models.count_parameters(scorer)
    held = shard_study.held_bytes(scorer, optimizer)
    assert held == {"weights": 4 * p, "gradients": 4 * p, "optimiser": 8 * p}


# LoRA against all weights -------------------------------------------------------------------------

SMALL = adapter_study.AdapterStudy(
    seeds=(0, 1),
    tuning_seeds=(100,),
    rates={"all weights": (1e-4, 1e-3), "LoRA": (1e-3, 1e-2)},
    pairs=40,
    held_out=20,
    steps=6,
    samples=1,
    max_new_tokens=4,
)


def test_equal_operations_are_those_of_the_examples_that_are_seen():
    groups = [([1] * (3 + i % 5), [[2] * (4 + i % 7), [2] * 5]) for i in range(50)]
    config = TrainingConfig(steps=9, batch_size=8)
    sized = costs.Architecture.of(models.tiny_lm(531).config)
    steps, share = adapter_study.equal_steps(sized, groups, config, 8)

    def spent(n, rank):
        seen = [i for step in schedule(groups, replace(config, steps=n)) for i in step]
        lengths = [(len(groups[i][0]), [len(y) for y in groups[i][1]]) for i in seen]
        return costs.training_flops(sized, lengths, rank=rank)

    budget = spent(9, None)
    assert share == pytest.approx(spent(steps, 8) / budget)
    assert spent(steps, 8) <= budget < spent(steps + 1, 8) and steps > 9


def test_the_study_chooses_a_rate_on_other_seeds_and_goes_on_where_it_stopped(
    tmp_path, monkeypatch
):
    pytest.importorskip("peft")
    command = ["--out", str(tmp_path / "found.json"), "--parts", str(tmp_path / "parts")]
    assert adapter_study.main(command, SMALL) == 0
    runs = json.loads((tmp_path / "found.json").read_text())["runs"]
    for way, rates in SMALL.rates.items():
        best = adapter_study.best_rate(SMALL, way, runs)
        for rate in rates:
            want = {"100", "0", "1"} if rate == best else {"100"}
            assert set(runs[adapter_study.run_name(way, rate)]) == want
    row = runs[adapter_study.run_name("LoRA", adapter_study.best_rate(SMALL, "LoRA", runs))]["0"]
    assert row["steps"] > 6 and 0.8 < row["share"] <= 1
    assert row["losses"][0] == pytest.approx(np.log(2), abs=1e-5)
    assert adapter_study.main([*command, "--check"], SMALL) == 0
    monkeypatch.setattr(adapter_study, "tuned", lambda *_: pytest.fail("it is kept"))
    assert adapter_study.main(command, SMALL) == 0


def test_what_is_stored_of_adapters_is_of_the_study_of_today():
    stored = adapter_study.load()
    study = adapter_study.AdapterStudy()
    assert stored["settings"] == json.loads(json.dumps(asdict(study)))
    for way in adapter_study.WAYS:
        best = adapter_study.best_rate(study, way, stored["runs"])
        found = stored["runs"][adapter_study.run_name(way, best)]
        assert {str(seed) for seed in study.seeds} <= set(found)
        assert all(0.98 < row["share"] <= 1 for row in found.values())
        assert not set(study.seeds) & set(study.tuning_seeds)
