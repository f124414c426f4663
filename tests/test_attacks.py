"""A share of the attacks of tests/attack, small enough for every run."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "attack"))

import batches
import kills
import malformed
import wrong_answers

from irlbook.exercises import get
from irlbook.lm import architecture
from irlbook.lm.trees import Tree

POSIX = pytest.mark.skipif(os.name != "posix", reason="the attack needs POSIX")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return malformed.Good(tmp_path_factory.mktemp("good"), malformed.in_process)


# Batches ------------------------------------------------------------------------------------------


def test_random_batches_score_and_learn_as_plain_rows_do():
    report = batches.attack(16, first=7 * batches.PER_MODEL - 8)
    assert report.failures == [] and report.tried.total() == 16


def test_a_batch_in_which_responses_see_one_another_is_noticed():
    def leaky(tree):
        length = tree.input_ids.shape[1]
        return ((tree.branch >= 0)[:, None, :] & torch.ones(length, length).tril().bool())[:, None]

    with (
        mock.patch.object(Tree, "visible", property(leaky)),
        mock.patch.object(architecture, "packs", return_value=True),
    ):
        assert batches.attack(8, first=4 * batches.PER_MODEL).failures  # of pairs


def test_a_batch_is_the_same_whatever_stands_before_it():
    one, two = (batches.attack(n, first=first) for n, first in ((3, 40), (1, 42)))
    assert len(one.largest) == 1 and one.largest.keys() == two.largest.keys()
    assert all(two.largest[k][w] <= one.largest[k][w] for k in one.largest for w in batches.WHAT)


# Kills --------------------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path):
    """A folder as a run leaves it."""
    (tmp_path / "run" / "checkpoints" / "step-00000002").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step-00000002" / "weights.safetensors").write_bytes(b"w")
    (tmp_path / "run" / "metrics.csv").write_text("step,loss,tokens_per_second\n1,0.5,100.0\n")
    head = {"__metadata__": {"run": json.dumps({"reports": [{"history": [
        {"loss": 1.0, "tokens_per_second": 3.0}]}]})}}  # fmt: skip
    text = json.dumps(head).encode()
    packed = len(text).to_bytes(8, "little") + text + b"weights"
    (tmp_path / "run" / "policy.safetensors").write_bytes(packed)
    return tmp_path / "run"


def test_of_two_runs_all_is_compared_but_the_clock(finished):
    before = kills.contents(finished)
    metrics = finished / "metrics.csv"
    metrics.write_text(metrics.read_text().replace("100.0", "7.0"))
    policy = finished / "policy.safetensors"
    policy.write_bytes(policy.read_bytes().replace(b"3.0", b"4.0"))
    assert kills.differences(kills.contents(finished), before) == []
    metrics.write_text(metrics.read_text().replace("0.5", "0.50"))
    policy.write_bytes(policy.read_bytes()[:-1] + b"S")
    (finished / ".model.new").touch()
    (finished / "checkpoints" / "step-00000002" / "weights.safetensors").unlink()
    assert kills.differences(kills.contents(finished), before) == [
        ".model.new is left over",
        "checkpoints/step-00000002/weights.safetensors is missing",
        "metrics.csv differs",
        "policy.safetensors differs",
    ]


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the attack's processes; sums over threads round otherwise
    yield
    torch.set_num_threads(before)


@POSIX
def test_a_run_killed_while_it_writes_ends_with_the_same_bytes(
    good, tmp_path, call, monkeypatch, one_thread
):
    """The killed run is a process; what is compared with it, and what goes on, runs here."""
    world = good.world
    monkeypatch.chdir(world)
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert call(*kills.command("raft", whole))[0] == 0
    words, rng = kills.command("raft", out), np.random.default_rng(0)
    when = kills.moment(kills.Course(0.0, 0.0, 0.0, 8), "writing", rng, out)
    assert kills.kill_at(words, world, out, when)
    assert call(*words)[0] == 0
    assert kills.differences(kills.contents(out), kills.contents(whole)) == []


# Files --------------------------------------------------------------------------------------------


FEW = [
    *("deep nesting", "half a surrogate", "a table of text", "code of its own"),
    *("pickled weights in pytorch_model.bin", "a pickle beside the weights, pytorch_model.bin"),
    *("an adapter's settings cut off", "infinite weights", "a head that is a list"),
    *("a million layers", "a template that reaches for the system", "cells that are a number"),
]


def test_bad_files_end_in_one_error_and_run_nothing(good):
    pytest.importorskip("pyarrow")
    cases = [one for one in malformed.fixed_cases(good) if one.name in FEW]
    with mock.patch.object(malformed, "forked", lambda work: (True, work())):
        report = malformed.attack(cases, good)
    assert report.failures == [] and report.ended.total() >= len(FEW)
    assert report.ended["model", "as the good one"] == 1  # the pickle that is not opened


def test_a_traceback_an_accepted_file_and_code_that_ran_are_noticed(good, tmp_path):
    case = malformed.Case("jsonl", "x", lambda folder: malformed.written(folder, "x.jsonl", b""))
    for answer, end in (
        ((1, "", "Traceback (most recent call last):\nerror: x"), "failed"),
        ((-11, "", "was ended by SIGSEGV"), "failed"),
        ((1, "", "error: a\nerror: b"), "failed"),
        ((1, "", "error: a"), "refused"),
    ):
        assert malformed._refusal(case, answer[0], answer[1], answer[2])[0] == end
    sure = malformed.Case("jsonl", "good rows", lambda folder: malformed.written(
        folder, "x.jsonl", good.files["jsonl"].read_bytes()), sure=True)  # fmt: skip
    assert malformed.judge(sure, good, tmp_path / "a")[0] == "failed"

    def baited(folder):
        (folder / malformed.CANARY).touch()
        return malformed.written(folder, "x.jsonl", b"")

    assert malformed.judge(malformed.Case("jsonl", "x", baited), good, tmp_path / "b")[0] == (
        "failed"
    )


def test_a_drawn_case_is_the_same_every_time(good):
    names = [
        [malformed.random_case(good, np.random.default_rng([0, i])).name for i in range(30)]
        for _ in range(2)
    ]
    assert names[0] == names[1] and len(set(names[0])) > 15


# Wrong answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["06.3", "09.4", "19.3"])
def test_wrong_answers_are_caught_and_told_whatever_is_drawn(id):
    for exercise in (get(id), wrong_answers.blind_exercise(get(id))):
        result = wrong_answers.attack(exercise, wrong_answers.SEEDS[20:22])
        assert result.failures == [] and result.seeds == 2
        assert result.told == result.caught == result.runs == 2 * len(exercise.wrong_answers) > 4


def test_an_answer_that_passes_or_hears_something_else_and_a_false_alarm_are_noticed():
    deaf = replace(get("19.3"), check=lambda answer, rng: None)
    result = wrong_answers.attack(deaf, [1])
    assert result.caught == result.told == 0 and result.missed == list(deaf.wrong_answers)
    other = replace(
        get("19.3"), wrong_answers={"x": (get("19.3").wrong_answers["best single"][0], "zz")}
    )
    result = wrong_answers.attack(other, [1])
    assert (result.caught, result.told, len(result.failures)) == (1, 0, 1)

    def deaf_to_right(answer, rng):
        raise wrong_answers.release.CheckFailed("all is right", "nothing is")

    result = wrong_answers.attack(replace(other, check=deaf_to_right), [1])
    assert result.false_alarms == 1 and "the reference, seed 1" in result.failures[0]


def test_a_budget_that_is_used_ends_after_a_whole_seed_and_an_endless_answer_is_stopped():
    result = wrong_answers.attack(get("19.3"), [1, 2], budget=0.0)
    assert result.seeds == 1 and result.runs == result.answers

    def endless(*arguments):
        while True:
            pass

    with mock.patch.object(wrong_answers, "LIMIT", 0.2):
        assert "ends within" in wrong_answers.heard(get("19.3"), endless, 1)
