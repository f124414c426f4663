"""The study of chapter 21: DQN with and without hindsight on bit-flip, over the number of bits.

That takes longer than a chapter may, so its result ships with the package, and this is how it was
made (about four minutes on one core):

    python -m irlbook.posttraining.hindsight_study --parts FOLDER

A run that was killed goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch

from irlbook.errors import as_command
from irlbook.posttraining.stored_runs import RESULTS, StoredRuns, bundle
from irlbook.rl.hindsight import HindsightConfig, hindsight_q_learning

__all__ = ["CONDITIONS", "HindsightStudy", "NAME", "main", "record", "settings"]

NAME = "hindsight"
CONDITIONS = {"DQN": 0.0, "HER": 0.8}  # the share of replayed goals that is replaced


@dataclass(frozen=True)
class HindsightStudy:
    """What is run: both learners, for each seed and numbers of bits, alike in all else.

    Attributes:
        sizes: the bits that each learner is given. DQN solves nothing at the largest of its sizes,
            and is not asked for more.
        cycles_per_bit: the budget grows with n: so many cycles of the learner for each bit.

    The settings were chosen on seed 50, which the study does not use.
    """

    sizes: Mapping[str, tuple[int, ...]] = field(
        default_factory=lambda: {"HER": (5, 8, 10, 13, 25), "DQN": (5, 8, 10, 13)}
    )
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    cycles_per_bit: int = 16
    learner: HindsightConfig = field(default_factory=HindsightConfig)


def settings(study: HindsightStudy) -> dict[str, Any]:
    """What all runs share, as it is stored."""
    shared = asdict(study.learner)
    for name in ("n_bits", "cycles", "replaced"):  # which differ between runs
        del shared[name]
    return {"learner": shared, "cycles_per_bit": study.cycles_per_bit, "replaced": CONDITIONS}


def record(study: HindsightStudy, condition: str, n_bits: int, seed: int) -> dict[str, Any]:
    """One run: shares of test episodes solved over the cycles, and episodes solved on the way."""
    config = replace(
        study.learner,
        n_bits=n_bits,
        cycles=study.cycles_per_bit * n_bits,
        replaced=CONDITIONS[condition],
    )
    found = hindsight_q_learning(config, seed=seed)
    return {
        "cycles": found.cycles.tolist(),
        "success": found.success.tolist(),
        "reached": found.reached,
        "played": found.played,
    }


def main(arguments: Sequence[str] | None = None, study: HindsightStudy | None = None) -> int:
    """Make all runs and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--parts", required=True, help="folder in which each run is kept")
    parser.add_argument("--out", default=str(RESULTS / f"{NAME}.json"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    study = study or HindsightStudy()
    runs = StoredRuns(NAME, settings(study), parts=given.parts)
    for condition, sizes in study.sizes.items():
        for n_bits in sizes:
            for seed in study.seeds:
                found = runs.get(
                    f"{condition}, {n_bits} bits",
                    seed,
                    partial(record, study, condition, n_bits, seed),
                )
                print(
                    f"{condition}, {n_bits} bits, seed {seed}: {found['success'][-1]:.0%}",
                    file=sys.stderr,
                )
    bundle(given.parts, given.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(as_command(main))
