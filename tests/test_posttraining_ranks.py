"""Training on one's own samples in two processes: what each of them learns from is the same."""

import json
from pathlib import Path

import numpy as np
import pytest
from ranks import run_two

SCRIPT = """
import json, os, sys
sys.path[:0] = [{tests!r}]
import numpy as np
import torch
torch.set_num_threads(1)
from irlbook.posttraining import dpo
from irlbook.posttraining.iterative import IterativeConfig, iterate_dpo
from irlbook.posttraining.online import OnlineConfig, train_online
from irlbook.posttraining.raft import RaftConfig, raft
from irlbook.training import StepConfig, TrainingConfig
from taste_world import THINGS, taught
PROMPTS = [f"How was the {{thing}}?" for thing in THINGS]
model, tokenizer = taught(PROMPTS)
coin = np.random.default_rng()  # another one in each process
asked = []

def reward(prompts, responses):
    asked.append(len(prompts))
    return coin.integers(0, 2, len(prompts)).tolist()

quiet = {{"progress": False, "tensorboard": False}}
steps = TrainingConfig(epochs=1, batch_size=2, learning_rate=1e-3, **quiet)
shared = {{"samples": 2, "max_new_tokens": 6, "training": steps}}
method = {method!r}
if method == "raft":
    policy, found = raft(model, tokenizer, PROMPTS, reward, RaftConfig(rounds=2, **shared),
                         gold=reward)
elif method == "iterative":
    config = IterativeConfig(rounds=2, loss=dpo.PreferenceConfig(beta=0.3), **shared)
    policy, found = iterate_dpo(model, tokenizer, PROMPTS, reward, config, gold=reward)
else:
    config = OnlineConfig("rloo", iterations=3, prompts=6, samples=2, max_new_tokens=6,
                          training=StepConfig(learning_rate=1e-3, **quiet))
    result = train_online(model, tokenizer, PROMPTS, reward, config, gold=reward)
    policy, found = result.policy, []
    rows = [[row[k] for k in ("reward", "gold", "kl", "loss")] for row in result.history]
if found:
    rows = [[one.reward, one.gold, one.kl, len(one.history)] for one in found]
weights = torch.cat([p.detach().flatten() for p in policy.parameters()])
import torch.distributed as dist
assert dist.get_world_size() == 2 and dist.get_backend() == "gloo"
dist.destroy_process_group()
with open(sys.argv[1] + "." + os.environ["RANK"], "w") as file:
    json.dump([rows, weights.tolist(), asked], file)
"""


@pytest.mark.parametrize("method", ["online", "raft", "iterative"])
def test_a_coin_as_reward_is_tossed_once_for_both_processes(method, tmp_path):
    """Otherwise they keep different data, take different numbers of steps, and wait for ever."""
    script = tmp_path / "ranks.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), method=method))
    run_two(script, tmp_path / "found")
    first, second = (json.loads((tmp_path / f"found.{rank}").read_text()) for rank in (0, 1))
    assert first[0] == second[0]
    np.testing.assert_array_equal(first[1], second[1])
    assert len(first[2]) == 2 * 3 and second[2] == []  # reward and gold, three times; one asks
    if method != "online":
        assert any(row[3] for row in first[0])
