"""How far it reaches: time and peak memory of large gridworlds, and how both grow with states.

    python benchmarks/bench_scale.py                  # all cases, the curve and docs/scaling.png
    python benchmarks/bench_scale.py --only cases|growth|figure
    python benchmarks/bench_scale.py --case soft --side 256    # one case, in this process

Each case runs in a process of its own, because a peak of memory cannot be taken back. It prints
the time of the work (building the problem is outside the clock), the peak of the whole process,
and the part of the peak above what the imports take. After the peak is read the answer is checked:
Bellman residual, flow residual, or feature gap.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import common
import numpy as np

DISCOUNT = 0.99
GIGABYTE = 1e9
LIMIT = 2 * GIGABYTE
CASES = [
    ("plan", 256),
    ("soft", 256),
    ("occupancy", 256),
    ("fit", 256),
    ("soft", 1000),
    ("occupancy", 1000),
]
GROWTH = [5, 10, 20, 32, 64, 100, 200, 316, 512, 1000]
FIGURE = Path(__file__).parent.parent / "docs" / "scaling.png"


def one_case(work: str, side: int) -> dict[str, float]:
    """Do one piece of work and measure it.

    Args:
        work: plan (optimal values), soft (soft values to 1e-8), occupancy (soft values, then the
            occupancy measure of the soft policy) or fit (ten weights to a feature gap of 1e-6).
    """
    from irlbook import planning
    from irlbook.irl import maxent

    baseline = common.peak_memory()
    rng = np.random.default_rng(0)
    features = common.bump_features(side, 10, rng)
    reward = features @ rng.normal(size=10)
    if work != "fit":
        del features
    mdp = common.make_mdp(common.grid_transitions(side), reward, DISCOUNT, start=None)
    record: dict[str, float] = {"states": side * side}
    if work == "fit":
        policy = planning.soft_policy_iteration(mdp, tolerance=1e-9).policy
        expert = planning.feature_expectations(planning.occupancy_measure(mdp, policy), features)
    begin = time.perf_counter()
    if work == "plan":
        plan = planning.modified_policy_iteration(mdp, tolerance=1e-6)
    elif work in ("soft", "occupancy"):
        plan = planning.soft_policy_iteration(mdp)
        record["soft seconds"] = time.perf_counter() - begin
        if work == "occupancy":
            visits = planning.occupancy_measure(mdp, plan.policy)
            record["occupancy seconds"] = time.perf_counter() - begin - record["soft seconds"]
    elif work == "fit":
        fit = maxent.fit_max_causal_ent(mdp, features, expert, tolerance=1e-6)
    else:
        raise SystemExit(f"unknown case {work!r}; choose plan, soft, occupancy or fit")
    record["seconds"] = time.perf_counter() - begin
    record["peak bytes"] = common.peak_memory()
    record["bytes above imports"] = record["peak bytes"] - baseline

    if work == "fit":
        check = mdp.with_reward(features @ fit.weights)
        policy = planning.soft_policy_iteration(check, tolerance=1e-9).policy
        reached = planning.feature_expectations(planning.occupancy_measure(mdp, policy), features)
        record["feature gap"] = np.abs(reached - expert).max()
        assert record["feature gap"] <= 1.01e-6, record
        return record
    q = mdp.reward + DISCOUNT * (mdp.transitions @ plan.values).reshape(mdp.reward.shape)
    top = q.max(axis=1)
    backup = top if work == "plan" else top + np.log(np.exp(q - top[:, None]).sum(axis=1))
    record["Bellman residual"] = np.abs(backup - plan.values).max()
    assert record["Bellman residual"] <= (1e-6 if work == "plan" else 1e-8), record
    if work == "occupancy":
        arrived = mdp.start + DISCOUNT * (mdp.transitions.T @ visits.ravel())
        record["flow residual"] = np.abs(visits.sum(axis=1) - arrived).sum()
        record["total error"] = abs(visits.sum() - 1 / (1 - DISCOUNT))
        assert record["flow residual"] <= 1e-6 and record["total error"] <= 1e-5, record
    return record


def run_cases(repeats: int) -> dict[str, object]:
    """Every named case, each `repeats` times; the median time and the largest peak count."""
    rows, results = [], {}
    for work, side in CASES:
        runs = [
            common.in_subprocess(__file__, "--case", work, "--side", side) for _ in range(repeats)
        ]
        record = runs[0] | {
            "seconds": common.spread(np.array([r["seconds"] for r in runs])),
            "peak bytes": max(r["peak bytes"] for r in runs),
        }
        parts = [
            f"{part} {common.show_seconds(np.median([r[f'{part} seconds'] for r in runs]))}"
            for part in ("soft", "occupancy")
            if f"{part} seconds" in record
        ]
        rows.append(
            [
                f"{work} {side}×{side}",
                record["states"],
                common.show_seconds(record["seconds"]["median"]),
                " + ".join(parts),
                f"{record['peak bytes'] / GIGABYTE:.2f} GB",
                "yes" if record["peak bytes"] < LIMIT else "NO",
            ]
        )
        results[f"{work} {side}×{side}"] = record
    common.table(["case", "states", "median time", "of which", "peak", "under 2 GB"], rows)
    return results


def run_growth() -> dict[str, object]:
    """Soft solve + occupancy from 25 to 10^6 states, and the slopes of both curves."""
    runs = []
    for side in GROWTH:
        repeats = 3 if side <= 316 else 1
        tries = [
            common.in_subprocess(__file__, "--case", "occupancy", "--side", side)
            for _ in range(repeats)
        ]
        runs.append(
            tries[0]
            | {
                key: float(np.median([t[key] for t in tries]))
                for key in (
                    "seconds",
                    "soft seconds",
                    "occupancy seconds",
                    "peak bytes",
                    "bytes above imports",
                )
            }
        )
    common.table(
        ["states", "soft", "occupancy", "peak", "above imports"],
        [
            [
                run["states"],
                common.show_seconds(run["soft seconds"]),
                common.show_seconds(run["occupancy seconds"]),
                f"{run['peak bytes'] / 1e6:.0f} MB",
                f"{run['bytes above imports'] / 1e6:.1f} MB",
            ]
            for run in runs
        ],
    )
    slopes = {}
    for key in ("seconds", "bytes above imports"):  # below 1,000 states fixed costs rule
        large = [(r["states"], r[key]) for r in runs if r["states"] >= 1000]
        slopes[key] = float(np.polyfit(*np.log(np.array(large)).T, 1)[0])
        print(f"log-log slope of {key} from 1,000 states on: {slopes[key]:.2f}", flush=True)
    return {"runs": runs, "slopes": slopes}


def draw(growth: dict[str, object]) -> None:
    """docs/scaling.png: both curves on log-log axes, each with a line of slope one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    runs = growth["runs"]
    states = np.array([run["states"] for run in runs])
    panels = [
        ("seconds", 1, "seconds", "Time of soft solve + occupancy"),
        ("bytes above imports", 1e6, "MB above imports", "Peak memory"),
    ]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, (key, unit, label, title) in zip(axes, panels, strict=True):
        values = np.array([run[key] for run in runs]) / unit
        axis.loglog(
            states,
            values,
            "o-",
            color="#0072B2",
            label=f"measured, slope {growth['slopes'][key]:.2f} from 1,000 states",
        )
        axis.loglog(
            states,
            values[-1] * states / states[-1],
            "--",
            color="#D55E00",
            label="linear (slope 1)",
        )
        axis.set(xlabel="states", ylabel=label, title=title)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110, metadata={"Software": None})
    print(f"written: docs/{FIGURE.name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=["plan", "soft", "occupancy", "fit"])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--only", choices=["cases", "growth", "figure"])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(one_case(options.case, options.side), default=float))
        return
    if options.only in (None, "cases"):
        common.save("scale", run_cases(options.repeats))
    if options.only in (None, "growth"):
        common.save("growth", run_growth())
    if options.only in (None, "growth", "figure"):
        draw(json.loads((common.RESULTS / "growth.json").read_text())["results"])


if __name__ == "__main__":
    main()
