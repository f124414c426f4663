"""Chapter 19's numbers on real data: verifiers, prompts and chains of thought, counted.

The data are no part of the book: GSM8K with OpenAI's labelled solutions, the prompt results of
Prompt-OIRL, and BIG-Bench Mistake. From a folder that holds them the counts that ship were made by

    python -m irlbook.posttraining.real_reasoning DATA OUT.json
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from irlbook.data.benchmarks import (
    MISTAKE_TASKS,
    read_bigbench_mistake,
    read_gsm8k,
    read_gsm8k_solutions,
)
from irlbook.data.prompt_results import PROMPTS, read_prompt_answers, read_prompt_results
from irlbook.data.records import ReasoningTrace
from irlbook.errors import as_command
from irlbook.posttraining.mistake_finding import (
    equation_mistake,
    fit_step_classifier,
    found_exactly,
    stack_mistake,
)
from irlbook.posttraining.process_rewards import area_under_curve
from irlbook.posttraining.prompt_choice import (
    choose_prompts,
    fit_no_interaction,
    fit_prompt_reward,
    question_features,
)
from irlbook.posttraining.stored_runs import RESULTS, read_stored
from irlbook.tasks.arithmetic import final_answer, is_correct, last_number
from irlbook.training.checkpoints import write_whole

__all__ = [
    "CHECKERS",
    "SPLITS",
    "STORED",
    "chains",
    "count_all",
    "main",
    "prompts",
    "stored",
    "verifiers",
]

STORED = RESULTS / "reasoning_real.json"
SPLITS = 10
CHECKERS: dict[str, Callable[[ReasoningTrace], int | None]] = {
    "multistep_arithmetic": equation_mistake,
    "dyck_languages": stack_mistake,
}


def verifiers(data: Path) -> dict[str, Any]:
    """How often two verifiers agree with labels: OpenAI's, and those of the prompt results."""
    solutions = read_gsm8k_solutions(data / "gsm8k")
    said = [is_correct(s.solution, s.answer) for s in solutions]
    models: dict[str, list[bool]] = {}
    for s in solutions:
        models.setdefault(s.model, []).append(s.correct)
    truth = [final_answer(p.solution) for p in read_gsm8k(data / "gsm8k")]
    llama: dict[str, Any] = {}
    for prompt in PROMPTS:
        label = np.load(data / "prompt_oirl_llama2" / f"gsm8k_test_{prompt}.npy")
        rows = read_prompt_answers(prompt, data / "prompt_oirl_llama2")
        llama[prompt] = {}
        for name, reader in (("marked", final_answer), ("last number", last_number)):
            right = np.array([reader(text) == truth[row] for row, text in rows])
            own = np.array([bool(label[row]) for row, _ in rows])
            llama[prompt][name] = [
                [int(((own == a) & (right == b)).sum()) for b in (False, True)]
                for a in (False, True)
            ]
    return {
        "solutions": len(solutions),
        "agree": sum(a == s.correct for a, s in zip(said, solutions, strict=True)),
        "right": {model: sum(labels) for model, labels in models.items()},
        "each": len(solutions) // len(models),
        "llama": llama,  # [label][verifier]
    }


def prompts(data: Path, splits: int = SPLITS) -> dict[str, Any]:
    """Choosing a prompt for each question, on held-out questions and held-out data sets."""
    folder = data / "prompt_oirl_llama2"
    right = {
        (task, split): read_prompt_results(folder, task, split).right
        for task in ("gsm8k", "svamp", "mawps")
        for split in ("train", "test")
    }
    questions = [p.question for p in read_gsm8k(data / "gsm8k", split="train")]
    x, y = question_features(questions), right["gsm8k", "train"]
    found = []
    for split in range(splits):
        order = np.random.default_rng(split).permutation(len(x))
        held, own = order[: len(x) // 4], order[len(x) // 4 :]
        model = fit_prompt_reward(x[own], y[own])
        chances, best = model.chances(x[held]), int(y[own].mean(axis=0).argmax())
        choice = choose_prompts(chances, y[held], best)
        found.append(
            {
                **{k: round(v, 4) for k, v in choice._asdict().items()},
                "best": best,
                "auc": round(area_under_curve(chances.ravel(), y[held].ravel()), 4),
                "auc_one_prompt": round(area_under_curve(chances[:, best], y[held][:, best]), 4),
            }
        )
    whole = fit_prompt_reward(x, y)
    new = right["gsm8k", "test"]
    asked = question_features([p.question for p in read_gsm8k(data / "gsm8k")][: len(new)])
    test = choose_prompts(whole.chances(asked), new, int(y.mean(axis=0).argmax()))
    return {
        "splits": found,
        "held_out": 0.25,
        "test": {k: round(v, 4) for k, v in test._asdict().items()},
        "sets": {
            f"{task} {split}": {
                "n": len(table),
                "right": [int(c) for c in table.sum(axis=0)],
                "any": int(table.any(axis=1).sum()),
            }
            for (task, split), table in right.items()
        },
        "no_interaction": {
            f"{task} train": {
                "any_prompt": round(model.any_prompt, 4),
                "best_prompt": round(model.best_prompt, 4),
                "patterns": _patterns(table, model.share @ _chances_of_patterns(model.chances)),
            }
            for task in ("gsm8k", "svamp", "mawps")
            for table in [right[task, "train"]]
            for model in [fit_no_interaction(table)]
        },
    }


def _chances_of_patterns(chances: np.ndarray) -> np.ndarray:
    """(G, 64) of each pattern of right and wrong, prompts in binary."""
    bits = (np.arange(64)[:, None] >> np.arange(6)) & 1  # (64, 6)
    return np.exp(bits @ np.log(chances).T + (1 - bits) @ np.log1p(-chances).T).T


def _patterns(table: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """How far the observed patterns lie from a model's: total variation, and what chance gives."""
    code = table.astype(int) @ (1 << np.arange(6))
    seen = np.bincount(code, minlength=64) / len(table)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(table), expected / expected.sum(), size=200) / len(table)
    return {
        "variation": round(float(np.abs(seen - expected).sum() / 2), 4),
        "by_chance": round(float(np.abs(drawn - expected).sum(axis=1).mean() / 2), 4),
    }


def chains(data: Path, splits: int = SPLITS) -> dict[str, Any]:
    """How often the first wrong step is named exactly, by baselines, checkers and a classifier."""
    found: dict[str, Any] = {}
    for task in MISTAKE_TASKS:
        traces = list(read_bigbench_mistake(data / "bigbench_mistake", task))
        place = np.array([-1 if t.first_mistake is None else t.first_mistake for t in traces])
        wrong = np.array([t.answer != t.target for t in traces])
        row: dict[str, Any] = {
            "n": len(traces),
            "with_mistake": int((place >= 0).sum()),
            "most_frequent": max(Counter(place.tolist()).values()),
            "wrong_answer": int(wrong.sum()),
            "lucky": int(((place >= 0) & ~wrong).sum()),
            "right_steps_wrong_answer": int(((place < 0) & wrong).sum()),
            "learned": [_learned(traces, split) for split in range(splits)],
        }
        if task in CHECKERS:
            exact = found_exactly(traces, CHECKERS[task])
            row["checker"] = int(exact.sum())
            row["checker_of_mistakes"] = int(exact[place >= 0].sum())
        found[task] = row
    return found


def _learned(traces: Sequence[ReasoningTrace], split: int) -> list[float]:
    """Exact on the held-out fifth: the classifier, and the most frequent place of the others."""
    order = np.random.default_rng(split).permutation(len(traces))
    held = [traces[i] for i in order[: len(traces) // 5]]
    own = [traces[i] for i in order[len(traces) // 5 :]]
    usual = Counter(t.first_mistake for t in own).most_common(1)[0][0]
    model = fit_step_classifier(own)
    return [
        round(float(found_exactly(held, model.first_mistake).mean()), 4),
        round(float(found_exactly(held, lambda trace: usual).mean()), 4),
    ]


def count_all(data: Path | str, splits: int = SPLITS) -> dict[str, Any]:
    """Everything that ships.

    Raises: DataNotFoundError.
    """
    folder = Path(data)
    return {
        "verifiers": verifiers(folder),
        "prompts": prompts(folder, splits),
        "mistakes": chains(folder, splits),
    }


def stored() -> dict[str, Any]:
    """The counts that ship with the book."""
    return read_stored(STORED, "python -m irlbook.posttraining.real_reasoning DATA OUT.json")


def main(arguments: list[str]) -> int:
    """Measure a folder of data, and write the counts."""
    if len(arguments) != 2:
        print("usage: python -m irlbook.posttraining.real_reasoning DATA OUT.json")
        return 2
    text = json.dumps(count_all(arguments[0]), indent=1) + "\n"
    write_whole(Path(arguments[1]), partial(Path.write_text, data=text, encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(as_command(lambda: main(sys.argv[1:])))
