"""Public data sets as their authors publish them: made-up rows here, the real sets where present.

The tests of the real sets run when the environment variable IRLBOOK_DATA names a folder with
`gsm8k`, `hh_harmless_test`, `llmbar`, `bigbench_mistake` and `prompt_oirl_llama2`.
"""

import ast
import json
import re

import numpy as np
import pytest

from irlbook import data, errors
from irlbook.data import files
from irlbook.data.benchmarks import LLMBAR_SUBSETS, MISTAKE_TASKS
from irlbook.tasks import arithmetic


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def real(name):
    try:
        return data.find_data(name)
    except errors.DataNotFoundError:
        pytest.skip(f"{name} is not here: set {files.FOLDER} to a folder that holds it")


# --- made-up rows ---------------------------------------------------------------------------------


def test_gsm8k(tmp_path):
    row = {"question": "1+1?", "answer": "It is 1+1=<<1+1=2>>2.\n#### 1,002 "}
    lines(tmp_path / "test.jsonl", row)
    lines(
        tmp_path / "train.jsonl",
        row,
        {"question": "q", "answer": "no mark"},
        {"question": "q", "answer": "####"},
    )
    problem = data.MathProblem("1+1?", "It is 1+1=2.\n#### 1,002 ", "1,002")
    assert list(data.read_gsm8k(tmp_path)) == [problem]
    assert data.read_gsm8k(tmp_path, calculator_marks=True)[0].solution == row["answer"]
    train = data.read_gsm8k(tmp_path / "train.jsonl", strict=False)
    assert len(train) == 1 and train.report.malformed == 2
    with pytest.raises(errors.DataNotFoundError, match="valid.jsonl"):
        data.read_gsm8k(tmp_path, split="valid")


def test_gsm8k_solutions(tmp_path):
    def row(**models):
        return {"question": "q", "ground_truth": "#### 2", **models}

    good = {"solution": "A: 2", "is_correct": True}
    lines(
        tmp_path / "example_model_solutions.jsonl",
        row(small=good, large=good | {"is_correct": False}),
        row(),
        row(small={"solution": "A: 2"}),
        row(small=good | {"is_correct": "yes"}),
    )
    with pytest.raises(errors.MalformedRowsError, match="3 of the first 4"):
        data.read_gsm8k_solutions(tmp_path)
    solutions = data.read_gsm8k_solutions(tmp_path, strict=False)
    assert [(s.model, s.correct) for s in solutions] == [("small", True), ("large", False)]
    assert solutions.report.rows == 4 and solutions.report.kept == 1


def test_llmbar(tmp_path):
    row = {"input": "Go.", "output_1": "a", "output_2": "b", "label": 2}
    for path in (
        tmp_path / "LLMBar_Natural.json",
        tmp_path / "Dataset" / "Manual" / "dataset.json",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([row, row | {"output_1": "b"}, row | {"label": 1}]))
    for subset in ("Natural", "Manual"):
        pairs = data.read_llmbar(tmp_path, subset)
        assert list(pairs) == [data.Preference("Go.", "b", "a"), data.Preference("Go.", "a", "b")]
        assert pairs.report.identical == 1
    with pytest.raises(errors.DataNotFoundError, match="Adversarial_Neighbor"):
        data.read_llmbar(tmp_path, "Supernatural")
    bad = lines(
        tmp_path / "bad.jsonl", row | {"label": 3}, row | {"label": True}, row | {"input": 1}
    )
    with pytest.raises(
        errors.MalformedRowsError, match=r"(?s)1: label .*2: label .*3: input is a number"
    ):
        data.read_llmbar(bad)


def test_bigbench_mistake(tmp_path):
    row = {"input": "q", "steps": ["a", "b"], "answer": "x", "target": "y", "mistake_index": 1}
    path = lines(
        tmp_path / "word_sorting.jsonl", row, row | {"mistake_index": None, "answer": None}
    )
    traces = data.read_bigbench_mistake(tmp_path)
    assert [trace.first_mistake for trace in traces] == [1, None]
    assert traces[0].steps == ("a", "b") and traces[1].answer is None
    wrong = [{"mistake_index": i} for i in (2, -1, True, "1", 1.0)]
    wrong += [{"steps": []}, {"steps": "ab"}, {"steps": ["a", 2]}, {"answer": 7}]
    lines(path, *(row | change for change in wrong), row)
    report = data.read_bigbench_mistake(path, strict=False).report
    assert report.malformed == len(wrong) and report.kept == 1


def test_hh_rlhf_reports_pairs_without_a_shared_prompt(tmp_path):
    front = "\n\nHuman: Hi\n\nAssistant:"
    good = {"chosen": front + " Hello.", "rejected": front + " What?"}
    other = good | {"rejected": "\n\nHuman: Ho\n\nAssistant: What?"}
    pairs = data.read_hh_rlhf(lines(tmp_path / "a.jsonl", good, other))
    assert list(pairs) == [data.Preference([{"role": "user", "content": "Hi"}], "Hello.", "What?")]
    assert [finding.line for finding in pairs.report.places("no shared prompt")] == [2]


# --- the real sets --------------------------------------------------------------------------------


def longer_wins(pairs):
    return np.mean([len(pair.chosen) > len(pair.rejected) for pair in pairs])


def test_the_verifier_agrees_with_openai_on_every_solution():
    solutions = data.read_gsm8k_solutions(real("gsm8k"))
    assert len(solutions) == 5276
    right = [arithmetic.is_correct(s.solution, s.answer) for s in solutions]
    assert sum(r == s.correct for r, s in zip(right, solutions, strict=True)) == 5276
    models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    accuracies = [100 * np.mean([s.correct for s in solutions if s.model == m]) for m in models]
    np.testing.assert_allclose(accuracies, [21.7, 39.0, 34.7, 56.3], atol=0.05)


def test_gsm8k_is_read_whole():
    problems = [*data.read_gsm8k(real("gsm8k")), *data.read_gsm8k("gsm8k", split="train")]
    assert len(problems) == 1319 + 7473
    assert not any("<<" in problem.solution for problem in problems)
    assert all(arithmetic.is_correct(p.solution, p.answer) for p in problems)


def test_the_generous_verifier_errs_on_llama_as_often_as_known():
    """70 of 6,000: 19 right ones refused, 51 wrong ones accepted."""
    folder = real("prompt_oirl_llama2")
    problems = data.read_gsm8k(real("gsm8k"))
    refused = accepted = 0
    for prompt in ("nan", "CoT", "APE", "Dis", "ToT", "Decomp"):
        labels = np.load(folder / f"gsm8k_test_{prompt}.npy", allow_pickle=False)
        text = (folder / f"gsm8k_test_answers_{prompt}.txt").read_text(encoding="utf-8")
        for block in filter(str.strip, re.split(r"(?m)^=+$", text)):
            index, response = ast.literal_eval(block.strip())
            found = arithmetic.last_number(response)
            right = found == arithmetic.final_answer(problems[int(index)].solution)
            refused += bool(labels[int(index)]) and not right
            accepted += right and not labels[int(index)]
    assert (refused, accepted) == (19, 51)


def test_hh_rlhf_is_read_with_its_unshared_prompts():
    pairs = data.read_hh_rlhf(real("hh_harmless_test"))
    report = pairs.report
    assert (report.rows, report.kept, report.no_shared_prompt) == (2312, 2307, 5)
    assert (report.malformed, report.identical, report.empty_responses) == (0, 0, 4)
    assert longer_wins(pairs) == pytest.approx(0.443, abs=0.001)
    assert all(pair.prompt[-1]["role"] == "user" for pair in pairs)


def test_hh_rlhf_comes_back(tmp_path):
    pairs = list(data.read_hh_rlhf(real("hh_harmless_test")))
    for format, name in (("hh", "a.jsonl.gz"), ("explicit", "b.jsonl"), ("implicit", "c.json")):
        path = data.write_preferences(tmp_path / name, pairs, format)
        same = list(data.read_preferences(path)) == pairs
        assert same  # a plain truth value: a failure must not print the rows


def test_llmbar_has_the_known_sizes_and_length_bias():
    found = {subset: data.read_llmbar(real("llmbar"), subset) for subset in LLMBAR_SUBSETS}
    assert [len(pairs) for pairs in found.values()] == [100, 134, 92, 47, 46]
    shares = [longer_wins(pairs) for pairs in found.values()]
    np.testing.assert_allclose(shares, [0.56, 0.119, 0.130, 0.447, 0.174], atol=0.001)
    others = [data.read_llmbar("llmbar", name) for name in ("MT-Bench", "LLMEval_2", "FairEval")]
    assert [pairs.report.rows for pairs in others] == [200, 200, 66]
    assert [pairs.report.identical for pairs in others] == [0, 1, 0]
    assert longer_wins(others[0]) > 0.65


def test_bigbench_mistake_has_the_known_counts():
    found = [data.read_bigbench_mistake(real("bigbench_mistake"), task) for task in MISTAKE_TASKS]
    assert [len(traces) for traces in found] == [300, 300, 300, 300, 986]
    wrong = [sum(trace.first_mistake is not None for trace in traces) for traces in found]
    assert wrong == [238, 260, 294, 266, 650]
    right = [sum(trace.answer == trace.target for trace in traces) for traces in found]
    assert right == [45, 43, 45, 45, 482]
