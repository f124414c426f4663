"""Which columns make a prompt and an answer; what must not be dropped is used or refused."""

import json
from importlib.util import find_spec

import pytest

from irlbook import data, errors
from irlbook.data import Demonstration, Preference, Unpaired, formats
from irlbook.data.report import Rejected

PAIR = {"chosen": "28 miles.", "rejected": "45 miles."}
SHOWN = {"prompt": "How far?", "completion": "28 miles."}
LONG = "How many miles are 45 kilometers, roughly?"


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --- prompts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "prompt"),
    [
        ({"prompt": "Go."}, "Go."),
        ({"prompt": ""}, ""),
        ({"instruction": "Go."}, "Go."),
        ({"question": "Go."}, "Go."),
        ({"query": "Go."}, "Go."),
        ({"input": "Go."}, "Go."),
        ({"instruction": "Go.", "input": ""}, "Go."),
        ({"instruction": "Go.", "input": None, "question": ""}, "Go."),
        ({"instruction": "Translate.", "input": "Dog"}, "Translate.\n\nDog"),
        ({"instruction": "Go.", "query": "Go."}, "Go."),
        ({"prompt": "Say: Go.", "instruction": "Go."}, "Say: Go."),  # written out already
        (
            {"prompt": "C. Go.", "context": "C.", "history": [], "tools": "[]", "images": []},
            "C. Go.",
        ),
        ({"prompt": "Go.", "text": "Go. 28 miles."}, "Go."),  # both, written out
        ({"prompt": "Go.", "system": "Be kind."}, [system("Be kind."), user("Go.")]),
        ({"question": "Go.", "system_prompt": "Be."}, [system("Be."), user("Go.")]),
        ({"prompt": "Go.", "system": ""}, "Go."),
        ({"prompt": [user("Go.")], "system": "Be."}, [system("Be."), user("Go.")]),
        ({"prompt": [system("Be."), user("Go.")], "system": "Be."}, [system("Be."), user("Go.")]),
    ],
)
def test_every_reader_makes_the_same_prompt_of_the_same_columns(columns, prompt):
    talk = isinstance(columns.get("prompt"), list)
    said = (lambda text: [assistant(text)]) if talk else (lambda text: text)
    assert formats.prompt_from(columns)[1] == prompt
    shown = columns | {"completion": said("Yes.")}
    assert formats.demonstration_from(shown)[1] == Demonstration(prompt, "Yes.")
    assert formats.unpaired_from(shown | {"label": 0})[1] == Unpaired(prompt, "Yes.", False)
    pair = columns | {key: said(text) for key, text in PAIR.items()}
    assert formats.preference_from(pair)[1] == Preference(prompt, *PAIR.values())


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"instruction": "Go.", "question": "Where?"}, "instruction and question could each be"),
        ({"input": "Go.", "query": "Where?"}, "query and input could each be"),
        ({"prompt": "Go.", "input": "Dog"}, "prompt and input could both be the prompt"),
        ({"prompt": "Go.", "instruction": "Say: Go."}, "prompt and instruction could both"),
        ({"prompt": "Go.", "context": "In 1912 ..."}, "context may be a part of the prompt"),
        ({"question": "Go?", "passage": "In 1912 ... Go?"}, "passage may be a part"),
        ({"prompt": "Go.", "history": [["a", "b"]]}, "history may be a part"),
        ({"prompt": "Go.", "Prompt": "Where?"}, "'Prompt' is not 'prompt'"),
        ({"Prompt": "Go."}, "'Prompt' is not 'prompt'"),
        ({" instruction": "Go."}, "' instruction' is not 'instruction'"),
        ({"prompt": "Go.", "tools": [{"name": "f"}]}, "tools would change the prompt"),
        ({"prompt": "Go.", "tools": '[{"name": "f"}]'}, "tools would change the prompt"),
        ({"prompt": "Go.", "documents": [{"text": "a"}]}, "documents would change the prompt"),
        ({"prompt": "Go.", "images": ["a.png"]}, "images would change the prompt"),
        ({"prompt": "Go.", "chat_template_kwargs": {"a": 1}}, "chat_template_kwargs would change"),
        ({"prompt": '[{"role": "user", "content": "Go."}]'}, "written as a text; keep the list"),
        ({"prompt": [system("A."), user("Go.")], "system": "B."}, "different system messages"),
        ({"prompt": [user("Go.") | {"name": "Ann"}]}, "prompt[0] has name"),
        ({"prompt": [user("Go."), assistant("", thinking="hm"), user("?")]}, "[1] has thinking"),
        ({"prompt": [user([{"type": "image"}])]}, "the content of prompt[0] is a list"),
    ],
)
def test_a_prompt_that_can_be_read_in_two_ways_is_refused_by_every_reader(columns, reason):
    pair = columns | PAIR
    shown = columns | {"completion": "Yes.", "label": True}
    for read, row in (
        (formats.prompt_from, columns),
        (formats.preference_from, pair),
        (formats.demonstration_from, shown),
        (formats.unpaired_from, shown),
    ):
        if read is formats.preference_from and isinstance(columns.get("prompt"), list):
            row = pair | {key: [assistant(text)] for key, text in PAIR.items()}
        with pytest.raises(Rejected) as caught:
            read(row)
        assert reason in str(caught.value) and caught.value.kind == "malformed"


# --- pairs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (PAIR | {"context": "45 kilometers"}, "context may be a part"),
        (PAIR | {"prompts": "45 kilometers"}, "prompts may be a part"),
        ({"chosen": "It is a", "rejected": "It is b", "system": "Be."}, "give a prompt"),
        ({"prompt": LONG, "chosen": LONG + " A", "rejected": LONG + " B"}, "both repeat prompt"),
        (PAIR | {"prompt": "a", "chosen": "\n\nHuman: a\n\nAssistant: b"}, "only a part"),
        ({"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: a"}, "only a part"),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c", "rejected": "\n\nHuman: a"},
            "the last message is not the assistant's",
        ),
        (PAIR | {"prompt": "\n\nHuman: a\n\nAssistant: b"}, "does not stop before the assistant"),
        (PAIR | {"prompt": "a", "ended": False}, "ended does not say which"),
        (PAIR | {"prompt": "a", "weight": 0}, "weight or train asks"),
        (PAIR | {"prompt": "a", "chosen": {"text": "c"}}, "chosen is an object"),
        (PAIR | {"prompt": "a", "chosen": ["c"]}, "chosen[0] is a text; a message"),
        ({"prompt": "a", "response_0": "b", "response_1": "c", "better_response_id": 1,
          "safer_response_id": 0}, "without chosen, rejected (there is: prompt, response_0"),
    ],
)  # fmt: skip
def test_a_pair_that_can_be_read_in_two_ways_is_refused(row, reason):
    with pytest.raises(Rejected) as caught:
        formats.preference_from(row)
    assert reason in str(caught.value)


def test_a_transcript_may_stand_in_the_prompt():
    front = "\n\nHuman: Hi\n\nAssistant: Ho.\n\nHuman: And?\n\nAssistant:"
    talk = [user("Hi"), assistant("Ho."), user("And?")]
    row = {"prompt": front, "chosen": " So.", "rejected": " No."}
    assert formats.preference_from(row)[1] == Preference(talk, "So.", "No.")
    whole = {"prompt": front, "chosen": front + " So.", "rejected": front + " No."}
    assert formats.preference_from(whole)[1] == Preference(talk, "So.", "No.")
    asked = {"question": "And?", "chosen": whole["chosen"], "rejected": whole["rejected"]}
    with pytest.raises(Rejected, match="neither repeats the prompt"):
        formats.preference_from(asked)


def test_a_system_message_stands_before_a_conversation_or_a_transcript():
    turns = {key: [system("Be."), user("Hi"), assistant(text)] for key, text in PAIR.items()}
    row = {"prompt": "Hi", **turns}  # the prompt as a text, beside whole conversations
    assert formats.preference_from(row)[1].prompt == [system("Be."), user("Hi")]
    texts = {key: f"\n\nHuman: Hi\n\nAssistant: {text}" for key, text in PAIR.items()}
    told = formats.preference_from(texts | {"system": "Be."})[1]
    assert told.prompt == [system("Be."), user("Hi")] and told.chosen == PAIR["chosen"]


def test_alpaca_pairs_keep_their_instruction(tmp_path):
    """Read as texts with a shared beginning, most would lose it, and the rest would share none."""
    rows = [
        {"instruction": f"Turn {i} kilometers into miles.", "input": f"{i} km" * (i % 2),
         "output": "unused", "chosen": f"{i} kilometers is {i / 1.609:.1f} miles",
         "rejected": f"{i} kilometers is far"}
        for i in range(40)
    ]  # fmt: skip
    pairs = data.read_preferences(lines(tmp_path / "a.jsonl", *rows))
    assert len(pairs) == 40 and "instruction + input" in str(pairs.report)
    assert "columns not used: output" in str(pairs.report)
    assert pairs[2].prompt == rows[2]["instruction"] and pairs[2].chosen == rows[2]["chosen"]
    assert pairs[3].prompt == rows[3]["instruction"] + "\n\n3 km"


def test_a_large_share_without_a_shared_prompt_fails_a_strict_read_and_is_told(tmp_path):
    share = {"chosen": "45 kilometers is 28 miles", "rejected": "45 kilometers is far"}
    apart = {"chosen": "It is far", "rejected": "28 miles"}
    path = lines(tmp_path / "a.jsonl", *[share, apart] * 20)
    with pytest.raises(errors.MalformedRowsError) as caught:
        data.read_preferences(path)
    said = str(caught.value)
    assert "20 of 40 pairs" in said and "50%" in said and f"{path}:2" in said and "\n" not in said
    assert len(data.read_preferences(path, strict=False)) == 20
    lines(path, *[share] * 40, apart, apart)  # a twentieth, 2 of 42, is left out and told
    report = data.read_preferences(path).report
    assert report.kept == 40 and f"{path}:41" in str(report)


def test_a_row_without_prompt_among_rows_with_one_is_malformed(tmp_path):
    pair = {"chosen": "It is far", "rejected": "It is 28"}
    path = lines(tmp_path / "a.jsonl", pair | {"prompt": "How far?"}, pair)
    with pytest.raises(errors.MalformedRowsError, match="a.jsonl:2: .*a prompt is missing here"):
        data.read_preferences(path)
    lines(tmp_path / "b.jsonl", pair)  # another file may have its own format
    lines(path, pair | {"prompt": "How far?"})
    assert [one.prompt for one in data.read_preferences(tmp_path)] == ["How far?", "It is"]


def test_scores_and_messages_beside_a_pair_are_not_used_and_named_once(tmp_path):
    turns = {key: [user("Hi"), assistant(text, score=3)] for key, text in PAIR.items()}
    row = {"prompt": "Hi", "messages": turns["chosen"], "score_chosen": 2.0, "id": 7, **turns}
    pairs = data.read_preferences(lines(tmp_path / "a.jsonl", row, row))
    assert pairs[0].margin is None and pairs[0].prompt == [user("Hi")]
    told = "columns not used: messages, score_chosen, id, chosen[].score, rejected[].score"
    assert str(pairs.report).count(told) == 1


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (SHOWN, ("How far?", "28 miles.")),
        ({"instruction": "Say.", "input": "Dog", "output": "Hund"}, ("Say.\n\nDog", "Hund")),
        ({"input": "Dog", "output": "Hund"}, ("Dog", "Hund")),
        ({"question": "2+2?", "answer": "4"}, ("2+2?", "4")),
        ({"input": "2+2?", "target": "4"}, ("2+2?", "4")),
        ({"prompt": "2+2?", "response": "It is 4.", "answer": "4"}, ("2+2?", "It is 4.")),
        ({"prompt": "a", "completion": "b", "response": "b"}, ("a", "b")),
        (SHOWN | {"weight": 1, "train": True, "thinking": ""}, ("How far?", "28 miles.")),
        ({"messages": [user("Hi"), assistant("Ho", weight=1)]}, ([user("Hi")], "Ho")),
        ({"prompt": "Hi", "messages": [user("Hi"), assistant("Ho")]}, ([user("Hi")], "Ho")),
        (
            {"messages": [user("Hi"), assistant("Ho")], "completion": [assistant("Ho")]},
            ([user("Hi")], "Ho"),
        ),
        (  # the earlier turn is a part of the prompt, which is not learned anyway
            {"messages": [user("a"), assistant("b", weight=0), user("c"), assistant("d")]},
            ([user("a"), assistant("b"), user("c")], "d"),
        ),
        (
            {"messages": [user("Hi"), assistant("Ho")], "system": "Be."},
            ([system("Be."), user("Hi")], "Ho"),
        ),
    ],
)
def test_demonstrations_under_their_usual_names(row, expected):
    assert formats.demonstration_from(row)[1] == Demonstration(*expected)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "Q: a A: b"}, "without prompt (there is: text)"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "there is: conversations"),
        ({"prompt": "a", "completion": "b", "output": "c"}, "completion and output could each be"),
        ({"input": "a", "answer": "b", "target": "c"}, "answer and target could each be"),
        (
            {"prompt": "a", "messages": [user("b"), assistant("c")]},
            "does not hold what prompt says",
        ),
        (
            {"messages": [user("b"), assistant("c")], "completion": "d"},
            "messages and completion end with different answers",
        ),
        ({"messages": [user("a"), assistant("b", weight=0)]}, "not to be learned"),
        ({"messages": [user("a"), assistant("b", weight=0.5)]}, "not to be learned"),
        ({"messages": [user("a"), assistant("b", train=False)]}, "not to be learned"),
        ({"messages": [user("a"), assistant("b", reasoning_content="hm")]}, "reasoning_content"),
        ({"messages": [user("a"), assistant("", tool_calls=[{"id": 1}])]}, "calls a tool"),
        ({"messages": [user("a"), assistant("b")], "tools": [{"name": "f"}]}, "tools would change"),
        (SHOWN | {"thinking": "hm"}, "thinking would change the answer"),
        (SHOWN | {"reasoning": "hm"}, "reasoning would change the answer"),
        (SHOWN | {"train": False}, "weight or train"),
        (SHOWN | {"weight": 2}, "weight or train"),
        (SHOWN | {"ended": "no"}, "ended is neither"),
        (SHOWN | {"completion": 28}, "completion is a number"),
        (SHOWN | {"Completion": "b"}, "'Completion' is not 'completion'"),
    ],
)
def test_an_answer_that_would_lose_something_is_refused(row, reason):
    with pytest.raises(Rejected) as caught:
        formats.demonstration_from(row)
    assert reason in str(caught.value)


@pytest.mark.parametrize("label", ["Tie", "true", 2, 0.5, None, float("nan"), [], 10**400])
def test_a_label_is_true_or_false(label):
    with pytest.raises(Rejected, match="label"):
        formats.unpaired_from(SHOWN | {"label": label})


@pytest.mark.parametrize("margin", [10**400, -(10**400), float("inf"), float("nan"), "1", True, []])
def test_a_margin_is_a_finite_number(tmp_path, margin):
    with pytest.raises(Rejected, match="margin"):
        formats.preference_from(PAIR | {"prompt": "a", "margin": margin})
    digits = tmp_path / "a.jsonl"
    digits.write_text(
        '{"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1' + "0" * 400 + "}"
    )
    with pytest.raises(errors.MalformedRowsError, match="a.jsonl:1: margin is too large"):
        data.read_preferences(digits)


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
def test_columns_of_structs_in_parquet_are_messages_or_named(tmp_path):
    import pyarrow
    from pyarrow import parquet

    talk = [user("Hi"), assistant("Ho", tool_calls=None)]
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": talk}]), tmp_path / "a.parquet")
    assert list(data.read_demonstrations(tmp_path / "a.parquet")) == [
        Demonstration([user("Hi")], "Ho")
    ]
    rows = [{"prompt": {"text": "Hi"}, "completion": "Ho"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "b.parquet")
    with pytest.raises(errors.MalformedRowsError, match="b.parquet:1: prompt is an object"):
        data.read_demonstrations(tmp_path / "b.parquet")


def test_cut_samples_stay_cut_when_they_are_written_and_read(tmp_path):
    shown = [Demonstration("a", "b"), Demonstration("c", "d", ended=False)]
    path = data.write_demonstrations(tmp_path / "a.jsonl", shown)
    assert list(data.read_demonstrations(path)) == shown
    assert [json.loads(line).get("ended") for line in path.read_text().splitlines()] == [
        None,
        False,
    ]
    labelled = [Unpaired("a", "b", True, ended=False), Unpaired("a", "c", False)]
    assert list(data.read_unpaired(data.write_unpaired(tmp_path / "b.jsonl", labelled))) == labelled


def test_a_record_knows_its_file_and_line(tmp_path):
    path = lines(tmp_path / "a.jsonl", SHOWN, {}, SHOWN)
    shown = data.read_demonstrations(path, strict=False)
    assert [one.where for one in shown] == shown.where == [f"{path}:1", f"{path}:3"]
    assert data.read_prompts(path, strict=False).where == shown.where
    assert shown[0] == shown[1] and "where" not in repr(shown[0])
