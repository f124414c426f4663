"""Which measurements chapter 23 needs, run by name, each kept as soon as it is done.

    python -m irlbook.posttraining.real_model --model FOLDER --part bugs --out RESULTS.json
    python -m irlbook.posttraining.real_model --model FOLDER --part policies --runs "dpo 1"
    python -m irlbook.posttraining.real_model --model FOLDER --device cuda --out RESULTS.json

A *job* is one measurement with all its settings. What it found is written, all or nothing, under a
name made of them; the same call again goes on with the jobs that are missing, and a training run
goes on from its last checkpoint. The file of results is made anew from what is there, and says what
is missing. What an earlier file holds of the same weights and the same task is kept, and its
policies are not trained again: the study can go on on another machine. One pool of samples judges
every policy, so the file holds it whole: another machine may draw others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irlbook.errors import CheckpointError, DataNotFoundError, EndlessResponsesWarning
from irlbook.lm import models
from irlbook.lm.tokenization import decode
from irlbook.posttraining.over_optimization_study import versions
from irlbook.posttraining.real_model import human_preferences, sentiment, silent_bugs
from irlbook.posttraining.real_model.frontier import (
    Evaluation,
    best_of_n_points,
    direction,
    summarise,
    tilt,
)
from irlbook.posttraining.real_model.policies import (
    RUNS,
    PolicyRun,
    Pool,
    Task,
    classes_of,
    draw_pool,
    log_ratios_on,
    measure_policy,
    train_offline,
    train_on_reward,
)
from irlbook.posttraining.stored_runs import RESULTS, read_stored
from irlbook.training import distributed
from irlbook.training.checkpoints import write_whole

__all__ = [
    "EXAMPLES",
    "NS",
    "PARTS",
    "RealModelStudy",
    "SHOWN",
    "STORED",
    "STRENGTHS",
    "largest_gap",
    "load",
    "main",
    "measure_again",
    "weights_digest",
]

STORED = RESULTS / "real_model.json"
PARTS = ("bugs", "policies", "rewards", "fine-tuned")
NS = (1, 2, 4, 8, 16)
STRENGTHS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0)
EXAMPLES = (
    "The staff was friendly.",
    "The staff was not friendly.",
    "The staff was VERY friendly!",
)
SHOWN = 2  # held-out prompts whose first samples are kept as texts


def weights_digest(folder: Path) -> str:
    """SHA-256 of a model folder's weights, all files in the order of their names.

    Raises:
        DataNotFoundError: the folder holds no safetensors.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataNotFoundError(
            f"{folder} holds no *.safetensors. Give the folder of a saved model: its config.json, "
            "weights and tokenizer."
        )
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as opened:
            while part := opened.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()


class RealModelStudy:
    """One model, one task, and a folder in which each job's result is kept."""

    def __init__(
        self,
        folder: Path,
        work: Path,
        task: Task | None = None,
        *,
        seeds: Sequence[int] = (0,),
        data: Path | None = None,
        pairs: int = 2312,
        note: str = "",
        earlier: Mapping[str, Any] | None = None,
        minutes: float = math.inf,
    ) -> None:
        self.folder, self.work, self.seeds = folder, work, tuple(seeds)
        self.task, self.data, self.pairs = task or Task(), data, pairs
        self.weights, self.note = weights_digest(folder), note
        self.earlier = self._same(earlier)
        self.until = time.monotonic() + 60 * minutes

    def _same(self, earlier: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """An earlier file of results, if it was measured on these weights and for this task."""
        card = (earlier or {}).get("card", {})
        asked = {k: v for k, v in card.get("task", {}).items() if k in self.task.settings()}
        same = card.get("weights_sha256") == self.weights and asked == self.task.settings()
        return (earlier or {}) if same else {}

    def _earlier_run(self, name: str, run: PolicyRun, seed: int) -> dict[str, Any] | None:
        kept = self.earlier.get("policies", {}).get("runs", {}).get(name)
        if kept is None or kept["settings"] != asdict(run):
            return None
        return kept["seeds"].get(str(seed))

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """The start and its tokenizer."""
        model, tokenizer = models.load_lm(self.folder, self.task.device)
        return model.eval(), tokenizer

    # Jobs -----------------------------------------------------------------------------------------

    def path(self, name: str, settings: Mapping[str, Any]) -> Path:
        """Where the result of a job is kept."""
        key = json.dumps([name, settings, self.weights], sort_keys=True)
        slug = "".join(c if c.isalnum() else "-" for c in name)
        return self.work / f"{slug}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"

    def found(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """What a job found, if it was run.

        Raises:
            CheckpointError: it cannot be read.
        """
        path = self.path(name, settings)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} cannot be read: {error}. Remove it to run the job again."
            ) from error

    def job(
        self, name: str, settings: Mapping[str, Any], compute: Callable[[], Any]
    ) -> dict[str, Any]:
        """The result of a job, computed if it is not there: result, cpu_seconds, peak_mb, date."""
        kept = self.found(name, settings)
        if kept is not None:
            return kept
        began = time.process_time()
        result = compute()
        record = {
            "job": name,
            "settings": dict(settings),
            "cpu_seconds": round(time.process_time() - began, 1),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "date": datetime.now(UTC).date().isoformat(),
            "result": _plain(result),
        }
        text = json.dumps(record)
        write_whole(self.path(name, settings), lambda to: to.write_text(text, encoding="utf-8"))
        print(f"{name}: {record['cpu_seconds']} CPU-seconds", file=sys.stderr, flush=True)
        return record

    def bugs(self) -> dict[str, Any]:
        """The silent bugs of chapter 10 on this tokenizer."""
        return self.job("bugs", {"machine": self.machine}, self._bugs)

    def _bugs(self) -> dict[str, Any]:
        model, tokenizer = self.loaded
        asked = self.task.asked[:4]
        with self.computing:
            return self.log_probabilities() | {
                "tokenizer": silent_bugs.tokenizer_facts(tokenizer),
                "end_token": silent_bugs.end_token_bug(model, tokenizer),
                "bfloat16": silent_bugs.log_softmax_in_bfloat16(model, tokenizer),
                "top_50": silent_bugs.generate_default(model, tokenizer, asked),
                "temperature": [
                    silent_bugs.temperature_bug(model, tokenizer, asked, t) for t in (0.5, 0.7, 1.0)
                ],
            }

    def log_probabilities(self) -> dict[str, Any]:
        """Those of the part `bugs` that a check measures anew."""
        model, tokenizer = self.loaded
        with self.computing:
            return {
                "prompt": silent_bugs.prompt_bugs(model, tokenizer),
                "boundary": silent_bugs.boundary_bugs(model, tokenizer),
            }

    def training_pool(self, seed: int) -> Pool:
        """Samples of the start to the training prompts, from which a run of this seed learns."""
        drawn = self._draw("train", self.task.prompts, self.task.train_samples, seed)
        return Pool.from_json(drawn["result"])

    @cached_property
    def judges(self) -> Pool:
        """Samples of the start to the held-out prompts, which judge every policy of the study."""
        if kept := self._kept_judges():
            return kept
        drawn = self._draw("held out", self.task.asked, self.task.pool_samples, 0)
        return Pool.from_json(drawn["result"])

    def _kept_judges(self) -> Pool | None:
        """The held-out pool of the earlier file, or else of a job that was done; None of none."""
        if "policies" in self.earlier:
            return Pool.from_json(self.earlier["policies"]["pool"])
        drawn = self.found("pool held out", self._pool_settings(0))
        return None if drawn is None else Pool.from_json(drawn["result"])

    def _pool_settings(self, seed: int) -> dict[str, Any]:
        return {"task": self.task.settings(), "seed": seed}

    def _draw(self, which: str, prompts: Sequence[str], n: int, seed: int) -> dict[str, Any]:
        def compute() -> dict[str, Any]:
            own = 1000 * seed + len(which)
            return draw_pool(*self.loaded, prompts, n, self.task, own).to_json()

        return self.job(f"pool {which}", self._pool_settings(seed), compute)

    def policy(self, name: str, run: PolicyRun, seed: int) -> dict[str, Any]:
        """A trained policy's training and its samples to the held-out prompts."""
        settings = self._policy_settings(run, seed, self.judges)
        kept = self.found(name, settings)
        if kept is not None:
            return kept
        pool = self.training_pool(seed)
        aside = self.path(name, settings).with_suffix(".run")

        def compute() -> dict[str, Any]:
            start, tokenizer = self.loaded
            teach = train_on_reward if run.kind in ("gold", "proxy") else train_offline
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", EndlessResponsesWarning)  # samples are cut early
                policy, told = teach(run, start, tokenizer, pool, self.task, seed, aside)
            found = measure_policy(policy, start, tokenizer, self.task, 77 + seed)
            return {
                "training": told,
                "evaluation": asdict(found),
                "log_ratios": log_ratios_on(policy, self.judges, tokenizer, self.task),
            }

        record = self.job(name, settings, compute)
        shutil.rmtree(aside, ignore_errors=True)  # gigabytes of checkpoints
        return record

    def rewards(self, part: str) -> None:
        """Reward models on real preferences: of frozen embeddings, or fine-tuned."""
        if self.data is None:
            raise DataNotFoundError(
                f"the part {part} reads preference data by path: --data FOLDER, which holds "
                "hh_harmless_test and llmbar."
            )
        if part == "rewards":
            human_preferences.measure_frozen(self)
        else:
            human_preferences.measure_all_fine_tuned(self)

    @property
    def over(self) -> bool:
        """Whether the time that was given has passed, so that no further job is begun."""
        return time.monotonic() > self.until

    def run(self, part: str, runs: Sequence[str] | None = None) -> None:
        """Do the jobs of a part that are missing, as long as there is time."""
        if self.over:
            return
        if part == "bugs":
            self.bugs()
        elif part in ("rewards", "fine-tuned"):
            self.rewards(part)
        else:
            for seed in self.seeds:
                for name in runs or RUNS:
                    if self._earlier_run(name, RUNS[name], seed) is None and not self.over:
                        self.policy(name, RUNS[name], seed)

    # Results --------------------------------------------------------------------------------------

    @property
    def machine(self) -> dict[str, str]:
        """Device and precision, which may change the last digits of every number."""
        return {"device": self.task.device, "precision": self.task.precision}

    @property
    def computing(self) -> torch.autocast:
        """The precision that was asked for, for what is computed outside of training."""
        return distributed.autocast(torch.device(self.task.device), self.task.precision)

    @property
    def all_seeds(self) -> list[int]:
        """Those that are asked for, and those of the earlier file."""
        return sorted({*self.seeds, *self.earlier.get("card", {}).get("seeds", [])})

    def _policy_settings(self, run: PolicyRun, seed: int, judges: Pool) -> dict[str, Any]:
        own = {"run": asdict(run), "task": self.task.settings(), "seed": seed}
        return own | {"judged on": judges.digest}

    def collect(self) -> dict[str, Any]:
        """What is there, made into the file of results; nothing is computed that takes long."""
        missing: list[str] = []
        parts: dict[str, Any] = {}
        records: list[dict[str, Any]] = []
        bugs = self.found("bugs", {"machine": self.machine})
        if bugs:
            records.append(bugs)
            parts["bugs"] = bugs["result"]
        elif "bugs" in self.earlier:
            parts["bugs"] = self.earlier["bugs"]
        else:
            missing.append("bugs")
        parts["rewards"], own, absent = human_preferences.collect(self)
        records += own
        missing += absent
        judges = self._kept_judges()
        if judges is None:
            missing.append("policies")
        else:
            runs, own, absent = self._runs(judges)
            parts["policies"] = self._start(judges) | {"runs": runs}
            records += own
            missing += absent
        before = self.earlier.get("card", {})
        spent = before.get("jobs", {}) | {_full_name(r): r["cpu_seconds"] for r in records}
        peaks = [before.get("peak_mb", 0), *(record["peak_mb"] for record in records)]
        dates = {*before.get("dates", []), *(record["date"] for record in records)}
        return {
            "card": self._card()
            | {
                "cpu_seconds": round(sum(spent.values())),
                "jobs": spent,
                "peak_mb": max(peaks),
                "dates": sorted(dates),
                "missing": missing,
            },
            **parts,
        }

    def _start(self, pool: Pool) -> dict[str, Any]:
        """The start's samples to the held-out prompts: their gold, the exact tilt, best of n."""
        tokenizer = models.load_tokenizer(self.folder)
        mine = pool.evaluation(self.task.held_out_samples)
        tilts = [(strength, *tilt(pool.gold, strength)) for strength in STRENGTHS]
        rated = zip(EXAMPLES, sentiment.gold([""] * len(EXAMPLES), EXAMPLES), strict=True)
        best = best_of_n_points(pool.gold, [n for n in NS if n <= pool.gold.shape[1]])
        return {
            "start": _rounded(summarise(mine, pool.gold, classes_of(tokenizer)))
            | {"texts": self._texts(mine, tokenizer)},
            "pool": pool.to_json(),
            "examples": [{"response": y, "gold": value} for y, value in rated],
            "tilt": [_rounded({"strength": s, "gold": gold, "kl": kl}) for s, gold, kl in tilts],
            "best_of_n": [_rounded(point) for point in best],
        }

    def _runs(self, pool: Pool) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
        """Each trained policy that there is, the records of its jobs, and which are missing."""
        tokenizer = models.load_tokenizer(self.folder)
        classes = classes_of(tokenizer)
        runs: dict[str, Any] = {}
        records: list[dict[str, Any]] = []
        missing: list[str] = []
        drawn = [("pool train", seed) for seed in self.all_seeds] + [("pool held out", 0)]
        for job, seed in drawn:
            if record := self.found(job, self._pool_settings(seed)):
                records.append(record)
        for name, run in RUNS.items():
            for seed in self.all_seeds:
                record = self.found(name, self._policy_settings(run, seed, pool))
                found: dict[str, Any] | None
                if record is not None:
                    records.append(record)
                    evaluation = Evaluation(**record["result"]["evaluation"])
                    more = _target(run, pool)
                    more |= direction(np.array(record["result"]["log_ratios"]), pool.gold)
                    found = {
                        **_rounded(summarise(evaluation, pool.gold, classes) | more),
                        **_by_prompt(evaluation),
                        "log_ratios": _rounded(record["result"]["log_ratios"]),
                        "training": record["result"]["training"],
                        "texts": self._texts(evaluation, tokenizer),
                        "cpu_seconds": record["cpu_seconds"],
                    }
                else:
                    found = self._earlier_run(name, run, seed)
                if found is None:
                    missing.append(f"{name}, seed {seed}")
                else:
                    own = runs.setdefault(name, {"settings": asdict(run), "seeds": {}})
                    own["seeds"][str(seed)] = found
        return runs, records, missing

    def _texts(self, evaluation: Evaluation, tokenizer: Any) -> list[dict[str, Any]]:
        """The first two samples to each of a few held-out prompts, to read."""
        found = []
        for prompt, answers, values in zip(
            self.task.asked[:SHOWN], evaluation.responses, evaluation.gold, strict=False
        ):
            for ids, value in zip(answers[:2], values, strict=False):
                text = decode(tokenizer, ids).strip()
                found.append({"prompt": prompt, "response": text, "gold": value})
        return found

    def _card(self) -> dict[str, Any]:
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        card = self.folder / "card.json"  # what `irlbook models import` leaves
        known = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
        return {
            "model": config.get("_name_or_path") or config.get("_model_name_or_path"),
            "type": config.get("model_type"),
            "weights_sha256": self.weights,
            "import": known,
            "note": self.note,
            "task": asdict(self.task),
            "seeds": self.all_seeds,
            "made_with": versions(),
            "threads": torch.get_num_threads(),
        }

    def write(self, out: Path) -> dict[str, Any]:
        """Write the file of results, all or nothing."""
        raw = self.collect()
        text = json.dumps(_plain(raw), separators=(",", ":")) + "\n"
        write_whole(out, lambda to: to.write_text(text, encoding="utf-8"))
        return raw


def load(path: Path | str = STORED) -> dict[str, Any]:
    """The stored results.

    Raises:
        DataNotFoundError: there are none, or they cannot be read.
    """
    return read_stored(path, "python -m irlbook.posttraining.real_model --model FOLDER")


def largest_gap(stored: Mapping[str, Any], fresh: Mapping[str, Any]) -> float:
    """The largest difference, in nats, between two measurements of the log-probabilities."""
    gaps = []
    for group in ("prompt", "boundary"):
        for name, values in stored["bugs"][group].items():
            gaps += [abs(a - b) for a, b in zip(values, fresh[group][name], strict=True)]
    return max(gaps)


def measure_again(
    folder: Path, stored: Mapping[str, Any], task: Task | None = None
) -> tuple[dict[str, Any], float | None]:
    """The log-probabilities of the part "bugs" of the model in `folder`, measured anew.

    Args:
        task: its device and precision are used.

    Returns:
        Them, as they are stored; and the largest difference from the stored ones in nats, or None
        where those were measured on other weights.

    Raises:
        DataNotFoundError: the folder holds no safetensors.
    """
    study = RealModelStudy(folder, folder, task)
    fresh = study.log_probabilities()
    same = stored["card"]["weights_sha256"] == study.weights
    return fresh, largest_gap(stored, fresh) if same else None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m irlbook.posttraining.real_model", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of a saved chat model")
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), help="which policies; all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data", type=Path, help="folder of hh_harmless_test and llmbar")
    parser.add_argument("--pairs", type=int, default=2312, help="real preference pairs to embed")
    parser.add_argument("--out", type=Path, default=STORED, help="the file of results")
    parser.add_argument("--work", type=Path, help="folder of the jobs that are done")
    parser.add_argument("--note", default="", help="what the card says of the weights' origin")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--max-tokens", type=int, default=Task.max_tokens, help="computed at once; for the memory"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="after these no further job is begun"
    )
    parser.add_argument("--check", action="store_true", help="measure a small part anew, compare")
    parser.add_argument("--collect", action="store_true", help="only renew the file of results")
    given = parser.parse_args(arguments)
    task = Task(device=given.device, precision=given.precision, max_tokens=given.max_tokens)
    work = given.work or given.out.with_suffix(".parts")
    earlier = load(given.out) if given.out.is_file() else None
    study = RealModelStudy(
        given.model,
        work,
        task,
        seeds=given.seeds,
        data=given.data,
        pairs=given.pairs,
        note=given.note,
        earlier=earlier,
        minutes=given.minutes,
    )
    if given.check:
        stored = earlier or load(given.out)
        if stored["card"]["weights_sha256"] != study.weights:
            print(f"{given.out} was measured on other weights; nothing to compare", file=sys.stderr)
            return 2
        gap = largest_gap(stored, study.log_probabilities())
        print(f"largest difference of a response's log-probability: {gap:.2g} nats")
        return int(not gap < (0.01 if given.precision == "float32" else 1.0))
    if not given.collect:
        parts: tuple[str, ...] = PARTS if given.part == "all" else (given.part,)
        if given.part == "all" and given.data is None:
            parts = PARTS[:2]
            print("without --data no reward models are measured", file=sys.stderr)
        for part in parts:
            study.run(part, given.runs)
    raw = study.write(given.out)
    print(
        f"{given.out}: {raw['card']['cpu_seconds']} CPU-seconds, missing {raw['card']['missing']}"
    )
    return 0


def _target(run: PolicyRun, pool: Pool) -> dict[str, float]:
    """Gold and KL of the policy at which the loss of an offline run is least: a tilt.

    Labels are Bernoulli(sigma(LABEL_SCALE times the difference of gold)), so DPO's optimum is the
    tilt of strength LABEL_SCALE / beta (Rafailov et al. 2023, section 4).
    """
    strengths = {
        "dpo": sentiment.LABEL_SCALE / run.beta,
        "all pairs": sentiment.LABEL_SCALE / run.beta,
        "noise": 0.0,
        "tilt": 1.0 / run.beta,
    }
    if run.kind not in strengths:
        return {}
    gold, kl = tilt(pool.gold, strengths[run.kind])
    return {"target_strength": strengths[run.kind], "target_gold": gold, "target_kl": kl}


def _full_name(record: Mapping[str, Any]) -> str:
    """A job's name, with its seed where it has one."""
    seed = record["settings"].get("seed")
    return record["job"] if seed is None else f"{record['job']}, seed {seed}"


def _by_prompt(evaluation: Evaluation) -> dict[str, list[float]]:
    """Mean gold of each held-out prompt's samples, and their KL to the start in nats."""
    return {
        "gold_by_prompt": _rounded(np.array(evaluation.gold).mean(1).tolist()),
        "kl_by_prompt": _rounded(evaluation.log_ratios.mean(1).tolist()),
    }


def _plain(value: Any) -> Any:
    """NaN, which JSON does not have, as null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value
