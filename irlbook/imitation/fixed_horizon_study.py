"""The study of chapter 8: GAIL, a blind reward and cloning where a fall ends nothing.

Each seed draws its own demonstration and its own pairs from it, and gives them to three learners.
That takes longer than a chapter may, so its result ships with the package, and this is how it was
made:

    python -m irlbook.imitation.fixed_horizon_study

The result is written after every run, so a study that was killed goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import irlbook.envs  # noqa: F401  (registers the environment)
from irlbook.errors import DataNotFoundError, ResumeMismatchError, as_command
from irlbook.imitation.gail import GAILConfig, GAILResult, gail
from irlbook.imitation.networks import Controller, clone_network, drive
from irlbook.rl.ppo import make_vector_env

__all__ = [
    "CONDITIONS",
    "ENV_ID",
    "GAINS",
    "PAIRS",
    "SETTINGS",
    "STORED",
    "act_greedily",
    "controller",
    "demonstration",
    "load",
    "main",
    "study",
    "summary_of",
    "true_returns",
]

STORED = Path(__file__).resolve().parent.parent / "results" / "fixed_horizon.json"
ENV_ID = "irlbook/FixedHorizonCartPole-v0"
GAINS = np.array([0.1, 0.3, 1.0, 0.6])  # position, speed, angle, turning speed
PAIRS = 20  # of the 200 of one demonstration

# Chosen on seeds 50 to 53, which the study does not use.
SETTINGS = GAILConfig(
    env_id=ENV_ID,
    num_steps=201,
    updates=30,
    minibatch=1024,
    learning_rate=4e-3,
    hidden=32,
    discriminator_steps=8,
    discriminator_batch=512,
    discriminator_anneal=True,
    gradient_penalty=1.0,
    units=(1.0, 1.0, 0.2, 1.0),
)
CONDITIONS: dict[str, GAILConfig] = {
    "GAIL": SETTINGS,
    "blind": replace(SETTINGS, discriminator_steps=0),  # D stays 1/2: every step pays log 2
    "no penalty": replace(SETTINGS, gradient_penalty=0.0),
    "short batches": replace(SETTINGS, num_steps=32, updates=188),  # as many steps in all
}


def controller(observations: np.ndarray) -> np.ndarray:
    """(n, 4) -> (n,) what the expert does: push to the side to which the pole leans and moves."""
    return (observations @ GAINS > 0).astype(int)


def demonstration(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations (20, 4) and actions (20,): some pairs of one episode of the expert."""
    met = drive(controller, 1, seed=100 + seed, env_id=ENV_ID).rows()
    seen = met[np.random.default_rng(seed).choice(len(met), PAIRS, replace=False)]
    return seen, controller(seen)


def true_returns(act: Controller, episodes: int = 100, seed: int = 7) -> np.ndarray:
    """(episodes,) upright steps of 200 in fresh episodes: what no learner has been told."""
    env = make_vector_env(ENV_ID, episodes)
    observation, _ = env.reset(seed=seed)
    returns, running = np.zeros(episodes), np.ones(episodes, dtype=bool)
    while running.any():
        observation, reward, _, truncated, _ = env.step(act(observation))
        returns += reward * running
        running &= ~truncated
    env.close()
    return returns


def act_greedily(result: GAILResult) -> Controller:
    """The likeliest action of an agent."""

    def act(observations: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = result.agent.actor(torch.as_tensor(observations, dtype=torch.float32))
        return logits.argmax(dim=1).numpy()

    return act


def summary_of(result: GAILResult) -> dict[str, Any]:
    """What is kept of a run: its return at the end, and curves per update."""
    kept = {name: np.round(result.log[name], 4).tolist() for name in ("loss", "accuracy")}
    upright = np.round(200 * result.log["true_reward"], 1).tolist()
    return {"return": float(true_returns(act_greedily(result)).mean()), "upright": upright, **kept}


def study(
    out: Path | str = STORED,
    seeds: Sequence[int] = range(10),
    conditions: Sequence[str] = tuple(CONDITIONS),
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run what is missing in `out`, condition by condition and seed by seed.

    Raises:
        ResumeMismatchError: `out` was made with other settings.
    """
    out = Path(out)
    settings = {name: json.loads(json.dumps(asdict(c))) for name, c in CONDITIONS.items()}
    packages = {name: version(name) for name in ("torch", "numpy", "gymnasium")}
    found: dict[str, Any] = {
        "settings": settings,
        "made_with": {"python": platform.python_version(), **packages},
        "runs": {name: {} for name in ("BC", *CONDITIONS)},
    }
    if out.exists():
        before = load(out)
        if before["settings"] != settings:
            raise ResumeMismatchError(
                f"{out} was made with other settings; give another file, or remove it to begin."
            )
        found = before
    for seed in seeds:
        seen, done = demonstration(seed)
        for name in ("BC", *conditions):
            if str(seed) in found["runs"][name]:
                continue
            if name == "BC":
                clone = clone_network(seen, done, 2, seed=seed)
                kept = {"return": float(true_returns(clone.act).mean())}
            else:
                kept = summary_of(gail(seen, done, CONDITIONS[name], seed=seed))
            found["runs"][name][str(seed)] = kept
            aside = out.with_suffix(".part")
            aside.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
            aside.replace(out)
            say(f"{name}, seed {seed}: {kept['return']:.0f} of 200")
    return found


def load(path: Path | str = STORED) -> dict[str, Any]:
    """The stored result: "runs" by condition and seed, "settings", and "made_with".

    Raises:
        DataNotFoundError: there is none, or it cannot be read.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataNotFoundError(
            f"{path} cannot be read ({error}); make it again with "
            "python -m irlbook.imitation.fixed_horizon_study"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m irlbook.imitation.fixed_horizon_study", description=study.__doc__
    )
    parser.add_argument("--out", type=Path, default=STORED, help="a file; that of the package")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--conditions", nargs="*", default=list(CONDITIONS), choices=CONDITIONS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    study(given.out, given.seeds, given.conditions)
    return 0


if __name__ == "__main__":
    raise SystemExit(as_command(main))
