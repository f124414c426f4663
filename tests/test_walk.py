"""From `irlbook train grpo` to the gradient: what one has to read, as online.py lists it."""

import inspect
import re
import sys
from pathlib import Path

from taste_world import THINGS, taught

import irlbook
from irlbook.lm import models
from irlbook.posttraining import online

ROOT = Path(irlbook.__file__).parent
PLACES = {  # of each function that the list names
    "_train": "cli/train.py",
    "train_policy": "posttraining/online_pipeline.py",
    "train_online": "posttraining/online.py",
    "draw_and_score": "posttraining/rollouts.py",
    "learn": "posttraining/online.py",
    "token_advantages": "posttraining/online.py",
    "grpo_advantage": "posttraining/policy_gradient.py",
    "step": "posttraining/online.py",
    "objective": "posttraining/online.py",
    "clipped_surrogate": "posttraining/policy_gradient.py",
    "kl_loss": "posttraining/kl.py",
    "accumulate": "training/loop.py",
}


def test_the_walk_to_the_gradient_is_as_listed_and_short(call, tmp_path):
    listed = online.__doc__.split("in\nthe order in which it is read:")[1].split("`configs")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == set(PLACES)
    models.save(*taught([f"How was the {thing}?" for thing in THINGS]), tmp_path / "start")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "How was the bus?"}\n')
    (tmp_path / "reward.py").write_text("def f(p, y):\n    return [len(t) for t in y]\n")
    lengths, stack = {}, []

    def watch(frame, event, argument):
        code = frame.f_code
        place = Path(code.co_filename)
        if event == "call" and ROOT in place.parents:
            key = (code.co_qualname, place.relative_to(ROOT).as_posix())
            if key not in lengths:
                lengths[key] = len(inspect.getsourcelines(code)[0])
        if event == "call" and code.co_name == "backward" and not stack:
            while frame := frame.f_back:
                stack.append(frame.f_code.co_name)

    given = ("--model", tmp_path / "start", "--data", tmp_path / "prompts.jsonl", "--out")
    given += (tmp_path / "run", "--reward", f"{tmp_path / 'reward.py'}:f", "--iterations", 1)
    sys.setprofile(watch)
    try:
        code, _, err = call("train", "grpo", *given, "--prompts", 1, "--max-new-tokens", 4)
    finally:
        sys.setprofile(None)
    assert code == 0, err
    own = [name for name in reversed(stack) if name in PLACES]
    assert own == ["_train", "train_policy", "train_online", "learn", "step", "accumulate"]
    assert sum(lengths[item] for item in PLACES.items()) <= 700
    assert len(set(PLACES.values())) <= 7
