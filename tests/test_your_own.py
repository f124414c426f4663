"""docs/your_own.md: the examples run as they are printed, and its mistakes are named."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from irlbook.data import read_preferences
from irlbook.errors import InvalidDataError, InvalidMDPError, RewardError, ShapeError
from irlbook.irl.maxent import fit_max_causal_ent
from irlbook.mdp import TabularMDP, Trajectories
from irlbook.posttraining.reward_workers import call as ask
from irlbook.stats import published_table

PAGE = Path(__file__).parents[1] / "docs" / "your_own.md"


def test_the_examples_of_the_page_run(call, tmp_path, monkeypatch, capsys):
    """In the order of the page, in one folder: Python in one namespace, and each command."""
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    blocks = re.findall(r"```(python|bash)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert [kind for kind, _ in blocks].count("python") == 5
    printed = ""
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), namespace)
            printed += capsys.readouterr().out
            continue
        for line in text.splitlines():
            command, *arguments = shlex.split(line)
            assert command == "irlbook"
            code, _, err = call(*arguments)
            assert code == 0, f"{line}\n{err}"
    fit, ride = namespace["fit"], namespace["ride"]
    assert fit.report.converged and "True" in printed
    assert np.argmax(fit.reward[:, 0]) == 2  # where the walks linger
    assert list(ride.terminal) == [False, False, False, True] and ride.reward[2, 1] == 1.0
    with open("scores.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 80
    for run in ("own", "dpo", "short", "rloo"):
        assert list(Path("runs", run, "model").glob("*.safetensors"))


def test_a_fit_without_a_horizon_explains_the_end_of_the_walks_by_negative_rewards():
    """What the page warns of: two walks of four steps in a world that goes on for ever."""
    P = np.zeros((2, 2, 2))
    P[:, 0, 0] = P[:, 1, 1] = 1.0
    world = TabularMDP.create(P, np.zeros(2), start=0, discount=0.9)
    walks = Trajectories.from_list(
        [([0, 1, 1, 0, 1], [1, 1, 0, 1]), ([0, 0, 1, 1, 1], [0, 1, 1, 1])]
    )
    seen = walks.feature_expectations(np.eye(2), 2, 0.9)
    endless = fit_max_causal_ent(world, np.eye(2), seen, l2=0.1)
    assert (endless.reward < -5).all()
    ended = fit_max_causal_ent(world, np.eye(2), seen, horizon=4, l2=0.1)
    assert np.abs(ended.reward).max() < 3


def test_trajectories_in_place_of_their_features_are_named():
    world = TabularMDP.create(np.eye(2)[:, None].repeat(2, 1), np.zeros(2))
    walks = Trajectories.from_list([([0, 0], [1])])
    with pytest.raises(ShapeError, match=r"feature_expectations\(features, mdp.n_actions"):
        fit_max_causal_ent(world, np.eye(2), walks)


def test_an_environment_with_half_a_table_is_told_which_half_is_missing():
    class Half:
        P = {0: {0: [(1.0, 0, 0.0, False)]}}

    with pytest.raises(InvalidMDPError, match="but no `initial_state_distrib`"):
        TabularMDP.from_gymnasium(Half())
    with pytest.raises(InvalidMDPError, match=r"P\[s\]\[a\] lists \(probability"):
        TabularMDP.from_gymnasium(object())


def test_messages_in_a_column_of_their_own_are_named(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text(
        '{"messages": [{"role": "user", "content": "q"}],'
        ' "chosen": [{"role": "assistant", "content": "c"}],'
        ' "rejected": [{"role": "assistant", "content": "r"}]}\n'
    )
    with pytest.raises(InvalidDataError, match="stand in the column prompt: rename messages"):
        list(read_preferences(file))


@pytest.mark.parametrize("given", [[{"score": 1.0}], ["good"], [[1.0], [2.0, 3.0]]])
def test_a_reward_that_gives_no_numbers_is_not_said_to_have_raised(given):
    with pytest.raises(RewardError, match="which are no numbers") as caught:
        ask(lambda prompts, responses: given, ["p"], ["y"])
    assert "raised" not in str(caught.value)


def test_a_published_row_of_another_type_is_named():
    with pytest.raises(ShapeError, match=r"a row is tuple.*PublishedResult\(paper"):
        published_table([("paper", "where", 1.0, 1.0, "agrees")])
