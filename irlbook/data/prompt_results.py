"""Which of six prompts led a language model to the right answer, question by question.

The results of LLaMA-2-7B-chat that Sun, Huyuk and van der Schaar (2023, 2309.06553) published with
Prompt-OIRL, for GSM8K, SVAMP and MAWPS. Row i of GSM8K is row i of the data set itself; for the
other two the questions are not among the files. None of it is part of the book.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from irlbook.data.files import find_data
from irlbook.errors import InvalidDataError

__all__ = ["PROMPTS", "PromptResults", "read_prompt_answers", "read_prompt_results"]

PROMPTS = ("nan", "CoT", "APE", "Dis", "ToT", "Decomp")
"""Short names, in the order of the columns; "nan" is "The answer is:" alone."""


@dataclass(frozen=True)
class PromptResults:
    """Attributes: prompts: the six texts. right: (N, 6) bool, a row for each question."""

    prompts: tuple[str, ...]
    right: np.ndarray


def read_prompt_results(
    name: str | Path = "prompt_oirl_llama2",
    task: Literal["gsm8k", "svamp", "mawps"] = "gsm8k",
    split: Literal["train", "test"] = "train",
) -> PromptResults:
    """The table of a data set.

    Args:
        name: a folder, or its name under IRLBOOK_DATA.

    Raises: DataNotFoundError, InvalidDataError.
    """
    folder = find_data(name)
    named = find_data(folder / f"{task}_names.json")
    prompts = tuple(json.loads(named.read_text(encoding="utf-8"))["prompts"])
    columns = [
        np.load(find_data(folder / f"{task}_{split}_{prompt}.npy"), allow_pickle=False)
        for prompt in PROMPTS
    ]
    if len(prompts) != len(PROMPTS) or len({c.shape for c in columns}) != 1 or columns[0].ndim != 1:
        raise InvalidDataError(
            f"{folder} holds {len(prompts)} prompts for {task} and columns of the shapes "
            f"{sorted({c.shape for c in columns})}; expected six of one length."
        )
    return PromptResults(prompts, np.stack(columns, axis=1).astype(bool))


def read_prompt_answers(
    prompt: str, name: str | Path = "prompt_oirl_llama2"
) -> list[tuple[int, str]]:
    """What the model wrote to GSM8K's test questions under one of `PROMPTS`: (row, text).

    Raises: DataNotFoundError, InvalidDataError.
    """
    path = find_data(find_data(name) / f"gsm8k_test_answers_{prompt}.txt")
    blocks = re.split(r"(?m)^=+$", path.read_text(encoding="utf-8"))
    try:
        found = [ast.literal_eval(block.strip()) for block in blocks if block.strip()]
        return [(int(row), str(text)) for row, text in found]
    except (ValueError, SyntaxError, TypeError) as error:
        raise InvalidDataError(
            f"{path} does not hold pairs of a number and a text between lines of '=' ({error})."
        ) from error
