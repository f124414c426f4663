"""Readers of four public data sets, as their authors publish them.

| set | by default read from (a path, or under the folder in IRLBOOK_DATA) |
|---|---|
| HH-RLHF (Bai et al. 2022) | the .jsonl.gz files of a folder `hh_harmless_test` |
| GSM8K (Cobbe et al. 2021) | `gsm8k/{train,test,example_model_solutions}.jsonl` |
| LLMBar (Zeng et al. 2024) | `llmbar/*<subset>.json`, or `llmbar/**/<subset>/dataset.json` |
| BIG-Bench Mistake (Tyen et al. 2024) | `bigbench_mistake/<task>.jsonl` |

None of them is part of the book. The options of each reader are those of `report.collect`.
"""

import re
from pathlib import Path
from typing import Any, Literal

from irlbook.data.columns import columns_of, text_of
from irlbook.data.files import find_data
from irlbook.data.formats import preference_from
from irlbook.data.records import LabelledSolution, MathProblem, Preference, ReasoningTrace
from irlbook.data.report import Records, Rejected, collect
from irlbook.errors import DataNotFoundError

__all__ = [
    "LLMBAR_SUBSETS",
    "MISTAKE_TASKS",
    "read_bigbench_mistake",
    "read_gsm8k",
    "read_gsm8k_solutions",
    "read_hh_rlhf",
    "read_llmbar",
]

LLMBAR_SUBSETS = (
    "Natural",
    "Adversarial_Neighbor",
    "Adversarial_GPTInst",
    "Adversarial_GPTOut",
    "Adversarial_Manual",
)
MISTAKE_TASKS = (
    "multistep_arithmetic",
    "tracking_shuffled_objects",
    "logical_deduction",
    "word_sorting",
    "dyck_languages",
)

_CALCULATOR = re.compile(r"<<[^<>]*>>")


def read_hh_rlhf(name: str | Path = "hh_harmless_test", **options: Any) -> Records[Preference]:
    """Human preferences between two replies to a conversation, with the prompt as messages.

    A few pairs differ before the last turn, so no prompt is shared: they are left out and
    reported. Content warning: the prompts and replies of the harmless split are offensive.
    """
    return collect(name, preference_from, **options)


def read_gsm8k(
    name: str | Path = "gsm8k",
    *,
    split: Literal["train", "test"] = "test",
    calculator_marks: bool = False,
    **options: Any,
) -> Records[MathProblem]:
    """School problems with worked solutions.

    Args:
        name: the folder, or a file.
        calculator_marks: keep the marks "<<2*3=6>>" in the solutions.
    """

    def parse(row: Any) -> tuple[str, MathProblem]:
        row = columns_of(row, "question", "answer")
        solution = text_of(row["answer"], "answer")
        _, mark, answer = solution.rpartition("####")
        if not mark or not answer.strip():
            raise Rejected('the answer does not end with "#### number"')
        if not calculator_marks:
            solution = _CALCULATOR.sub("", solution)
        question = text_of(row["question"], "question")
        return "GSM8K", MathProblem(question, solution, answer.strip())

    return collect(_member(name, f"{split}.jsonl"), parse, **options)


def read_gsm8k_solutions(name: str | Path = "gsm8k", **options: Any) -> Records[LabelledSolution]:
    """The solutions that four models wrote to GSM8K's test problems, labelled by OpenAI.

    One row holds one problem and all its solutions: the report counts rows, so problems.
    """
    rows = collect(_member(name, "example_model_solutions.jsonl"), _solutions_from, **options)
    return Records([solution for solutions in rows for solution in solutions], rows.report)


def _solutions_from(row: Any) -> tuple[str, list[LabelledSolution]]:
    row = columns_of(row, "question", "ground_truth")
    question = text_of(row["question"], "question")
    answer = text_of(row["ground_truth"], "ground_truth")
    solutions = []
    for model, value in row.items():
        if isinstance(value, dict):
            value = columns_of(value, "solution", "is_correct")
            if not isinstance(value["is_correct"], bool):
                raise Rejected("is_correct is neither true nor false")
            text = text_of(value["solution"], "solution")
            solutions.append(LabelledSolution(question, text, answer, model, value["is_correct"]))
    if not solutions:
        raise Rejected("no model's solution is there")
    return "GSM8K solutions", solutions


def read_llmbar(
    name: str | Path = "llmbar", subset: str = "Natural", **options: Any
) -> Records[Preference]:
    """Pairs with an objective preference: which output follows the instruction?

    Args:
        name: the folder, or a file.
        subset: one of `LLMBAR_SUBSETS`, or another that lies in the folder ("MT-Bench").
    """
    path = find_data(name)
    if path.is_dir():
        found = [*path.glob(f"*_{subset}.json"), *path.glob(f"**/{subset}/dataset.json")]
        if not found:
            raise DataNotFoundError(
                f"The folder {path} holds neither *_{subset}.json nor {subset}/dataset.json. "
                f"Choose a subset of LLMBar: {', '.join(LLMBAR_SUBSETS)}."
            )
        path = found[0]
    return collect(path, _llmbar_from, **options)


def _llmbar_from(row: Any) -> tuple[str, Preference]:
    row = columns_of(row, "input", "output_1", "output_2", "label")
    prompt = text_of(row["input"], "input")
    first, second = (text_of(row[key], key) for key in ("output_1", "output_2"))
    if isinstance(row["label"], bool) or row["label"] not in (1, 2):
        raise Rejected("label is neither 1 nor 2")
    if first == second:
        raise Rejected("output_1 and output_2 are equal", "identical")
    chosen, rejected = (first, second) if row["label"] == 1 else (second, first)
    return "LLMBar", Preference(prompt, chosen, rejected)


def read_bigbench_mistake(
    name: str | Path = "bigbench_mistake", task: str = "word_sorting", **options: Any
) -> Records[ReasoningTrace]:
    """Chains of thought with the first wrong step marked.

    Args:
        name: the folder, or a file.
        task: one of `MISTAKE_TASKS`.
    """
    return collect(_member(name, f"{task}.jsonl"), _trace_from, **options)


def _trace_from(row: Any) -> tuple[str, ReasoningTrace]:
    row = columns_of(row, "input", "steps", "target")
    steps, mistake = row["steps"], row.get("mistake_index")
    if not isinstance(steps, list) or not steps:
        raise Rejected("steps is no list of texts")
    if mistake is not None and (
        isinstance(mistake, bool) or not isinstance(mistake, int) or not 0 <= mistake < len(steps)
    ):
        raise Rejected(f"mistake_index is neither null nor the number of one of {len(steps)} steps")
    question, target = (text_of(row[key], key) for key in ("input", "target"))
    answer = None if row.get("answer") is None else text_of(row["answer"], "answer")
    texts = tuple(text_of(step, f"steps[{i}]") for i, step in enumerate(steps))
    return "BIG-Bench Mistake", ReasoningTrace(question, texts, answer, target, mistake)


def _member(name: str | Path, file: str) -> Path:
    """The file of that name in a folder; or the file itself, when `name` is one."""
    path = find_data(name)
    return find_data(path / file) if path.is_dir() else path
