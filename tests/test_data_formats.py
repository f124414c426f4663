"""TRL's formats and HH transcripts: rows to records, faults, and the way back unchanged."""

from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irlbook import data, errors
from irlbook.data import Demonstration, Preference, Unpaired, columns, formats
from irlbook.data.report import Rejected


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be kind."}
TALK = [SYSTEM, user("Hi"), assistant("Hello."), user("Name a colour.")]

PREFERENCES = [
    ({"prompt": "p", "chosen": " c", "rejected": " r"}, "explicit prompt", ("p", " c", " r")),
    (
        {"prompt": TALK, "chosen": [assistant("Blue")], "rejected": [assistant("Nine")]},
        "explicit prompt, conversational",
        (TALK, "Blue", "Nine"),
    ),
    (
        {"chosen": [*TALK, assistant("Blue")], "rejected": [*TALK, assistant("Nine")]},
        "implicit prompt, conversational",
        (TALK, "Blue", "Nine"),
    ),
    (  # a text as prompt beside whole conversations, as ultrafeedback_binarized has it
        {
            "prompt": "Hi",
            "chosen": [user("Hi"), assistant("Blue")],
            "rejected": [user("Hi"), assistant("Nine")],
        },
        "explicit prompt, conversational",
        ([user("Hi")], "Blue", "Nine"),
    ),
    (
        {"prompt": "Hi", "chosen": [assistant("Blue")], "rejected": [assistant("Nine")]},
        "explicit prompt, conversational",
        ([user("Hi")], "Blue", "Nine"),
    ),
    (  # the reply repeats the prompt's words: still a reply
        {"prompt": [assistant("Hi")], "chosen": [assistant("Hi")], "rejected": [assistant("Ho")]},
        "explicit prompt, conversational",
        ([assistant("Hi")], "Hi", "Ho"),
    ),
    (  # the completions share turns of their own
        {
            "prompt": [user("Hi")],
            "chosen": [assistant("Yes?"), user("A colour."), assistant("Blue")],
            "rejected": [assistant("Yes?"), user("A colour."), assistant("Nine")],
        },
        "explicit prompt, conversational",
        ([user("Hi"), assistant("Yes?"), user("A colour.")], "Blue", "Nine"),
    ),
    (
        {"chosen": "The sky is blue.", "rejected": "The sky is bored."},
        "implicit prompt",
        ("The sky is", " blue.", " bored."),
    ),
    (
        {"chosen": "Answer:\nyes", "rejected": "Answer:\nno"},
        "implicit prompt",
        ("Answer:\n", "yes", "no"),
    ),
    (  # one is the beginning of the other: no response is lost
        {"chosen": "The sky is", "rejected": "The sky is blue"},
        "implicit prompt",
        ("The sky", " is", " is blue"),
    ),
    (
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant: So.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant: Somehow.",
        },
        "HH-RLHF transcript",
        ([user("Hi"), assistant("Hello."), user("Why?")], "So.", "Somehow."),
    ),
]


@pytest.mark.parametrize(("row", "kind", "expected"), PREFERENCES)
def test_preferences_in_every_format(row, kind, expected):
    assert formats.preference_from(row) == (kind, Preference(*expected))
    with_more = row | {"margin": 2, "source": {"a": [1]}, "score": float("nan")}
    assert formats.preference_from(with_more)[1] == Preference(*expected, margin=2.0)


TEXTS = {"prompt": "p", "chosen": "c", "rejected": "r"}
BAD_PREFERENCES = [
    ({"prompt": "p", "chosen": "c"}, "without rejected (there is: prompt, chosen)"),
    ({}, "there is: nothing"),
    ([1], "the row is a list"),
    (TEXTS | {"chosen": 3}, "chosen is a number"),
    (TEXTS | {"chosen": float("nan")}, "chosen is a number"),
    (TEXTS | {"chosen": b"c"}, "of type bytes"),
    (TEXTS | {"chosen": []}, "chosen is an empty list"),
    (TEXTS | {"chosen": [assistant("c")]}, "one of chosen and rejected is a text"),
    (TEXTS | {"prompt": [user("p")]}, "prompt is a list of messages, but"),
    (TEXTS | {"prompt": {"text": "p"}}, "prompt is an object"),
    (TEXTS | {"chosen": "\ud800"}, "surrogate"),
    (TEXTS | {"margin": "much"}, "margin is a text"),
    (TEXTS | {"margin": True}, "margin is true or false"),
    (TEXTS | {"margin": float("nan")}, "not finite"),
    (TEXTS | {"margin": float("inf")}, "not finite"),
    ({"chosen": [[[]]], "rejected": [assistant("r")]}, "chosen[0] is a list"),
    ({"chosen": [{"role": "boss", "content": "c"}], "rejected": [assistant("r")]}, "the role of"),
    ({"chosen": [{"role": [], "content": "c"}], "rejected": [assistant("r")]}, "the role of"),
    ({"chosen": [{"role": "user"}], "rejected": [assistant("r")]}, "the content of chosen[0] is"),
    (
        {"chosen": [{"role": "user", "content": [{"type": "text"}]}], "rejected": [user("r")]},
        "the content of chosen[0] is a list",
    ),
    (
        {"chosen": [user("c"), assistant("") | {"tool_calls": [1]}], "rejected": [user("r")]},
        "calls a tool",
    ),
    ({"chosen": [user("c")], "rejected": [user("r")]}, "the last message is not the assistant's"),
    ({"chosen": [assistant("c")], "rejected": [assistant("r")]}, "no message stands before"),
    (
        {"prompt": "p", "chosen": [user("q"), assistant("c")], "rejected": [assistant("r")]},
        "neither repeats the prompt",
    ),
    (
        {"chosen": "\n\nHuman: Hi\n\nAssistant: a\n\nHuman: b", "rejected": "\n\nHuman: Hi"},
        "the last message is not the assistant's",
    ),
]


@pytest.mark.parametrize(("row", "reason"), BAD_PREFERENCES)
def test_a_bad_preference_is_rejected_with_the_reason(row, reason):
    with pytest.raises(Rejected) as caught:
        formats.preference_from(row)
    assert reason in str(caught.value) and caught.value.kind == "malformed"


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (TEXTS | {"chosen": "r"}, "identical"),
        ({"chosen": "same text", "rejected": "same text"}, "identical"),
        (
            {"prompt": "p", "chosen": [user("p"), assistant("r")], "rejected": [assistant("r")]},
            "identical",
        ),
        ({"chosen": "Blue it is", "rejected": "Nine it is"}, "no shared prompt"),
        ({"chosen": " Blue", "rejected": " Nine"}, "no shared prompt"),
        ({"chosen": "", "rejected": "a b"}, "no shared prompt"),
        (
            {"chosen": [user("a"), assistant("c")], "rejected": [user("b"), assistant("c")]},
            "no shared prompt",
        ),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: b"},
            "no shared prompt",
        ),
    ],
)
def test_pairs_that_teach_nothing_have_their_own_kind(row, kind):
    with pytest.raises(Rejected) as caught:
        formats.preference_from(row)
    assert caught.value.kind == kind


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
MESSAGE = st.fixed_dictionaries(
    {}, optional={"role": st.sampled_from(columns.ROLES) | LEAF, "content": LEAF}
)
VALUE = LEAF | st.lists(LEAF | MESSAGE, max_size=3) | MESSAGE
COLUMNS = ("prompt", "chosen", "rejected", "completion", "label", "margin", "messages")
ROW = VALUE | st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, VALUE))
READ = (
    formats.preference_from,
    formats.demonstration_from,
    formats.unpaired_from,
    formats.prompt_from,
)


@given(ROW, st.sampled_from(READ))
def test_any_row_gives_a_record_or_a_reason(row, read):
    try:
        kind, record = read(row)
    except Rejected as rejected:
        assert str(rejected)
    else:
        assert kind and record is not None


def test_transcripts_must_begin_with_a_turn():
    with pytest.raises(Rejected, match="does not begin with"):
        formats.read_transcript("Hi\n\nHuman: a")
    assert formats.read_transcript("\n\nHuman:a\n\nAssistant:  b ") == [user("a"), assistant(" b ")]


def test_demonstrations_unpaired_and_prompts():
    shown = {"prompt": "p", "completion": "c", "label": 1}
    assert formats.demonstration_from(shown) == ("prompt-completion", Demonstration("p", "c"))
    assert formats.unpaired_from(shown) == ("unpaired", Unpaired("p", "c", True))
    assert formats.prompt_from(shown) == ("prompt only", "p")
    talk = {"prompt": TALK, "completion": [assistant("Blue")], "label": False}
    assert formats.demonstration_from(talk)[1] == Demonstration(TALK, "Blue")
    assert formats.unpaired_from(talk) == (
        "unpaired, conversational",
        Unpaired(TALK, "Blue", False),
    )
    assert formats.prompt_from(talk) == ("prompt messages", TALK)
    messages = {"messages": [*TALK, assistant("Blue")]}
    assert formats.demonstration_from(messages) == ("messages", Demonstration(TALK, "Blue"))


@pytest.mark.parametrize(
    ("read", "row", "reason"),
    [
        (formats.demonstration_from, {"messages": "text"}, "messages is a text"),
        (formats.demonstration_from, {"messages": [user("a")]}, "not the assistant's"),
        (formats.demonstration_from, {"prompt": "p"}, "without completion"),
        (formats.demonstration_from, None, "the row is missing"),
        (
            formats.demonstration_from,
            {"prompt": "p", "completion": [assistant("a")]},
            "one of prompt",
        ),
        (
            formats.demonstration_from,
            {"prompt": TALK, "completion": [user("a")]},
            "not one message",
        ),
        (formats.demonstration_from, {"prompt": TALK, "completion": TALK}, "not one message"),
        (formats.unpaired_from, {"prompt": "p", "completion": "c"}, "without label"),
        (formats.unpaired_from, {"prompt": "p", "completion": "c", "label": "yes"}, "neither true"),
        (formats.unpaired_from, {"prompt": "p", "completion": "c", "label": [1]}, "neither true"),
        (formats.prompt_from, {"text": "p"}, "without prompt"),
    ],
)
def test_bad_rows_of_the_other_formats(read, row, reason):
    with pytest.raises(Rejected, match=reason):
        read(row)


# --- the way back ---------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
MESSAGES = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(columns.ROLES),
        TEXT,
    ),
    min_size=1,
    max_size=3,
)
MARGINS = st.none() | st.floats(allow_nan=False, allow_infinity=False)


def pairs(prompts):
    """At least one pair; chosen and rejected differ."""
    return st.lists(
        st.builds(Preference, prompts, TEXT, TEXT, MARGINS).filter(
            lambda p: p.chosen != p.rejected
        ),
        min_size=1,
        max_size=4,
    )


SUFFIX = st.sampled_from(
    [".jsonl", ".jsonl.gz", ".json", ".json.gz"] + [".parquet"] * (find_spec("pyarrow") is not None)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("written")


@given(records=pairs(TEXT) | pairs(MESSAGES), suffix=SUFFIX)
def test_explicit_preferences_come_back(folder, records, suffix):
    path = data.write_preferences(folder / f"a{suffix}", records)
    assert list(data.read_preferences(path)) == records


@given(records=pairs(MESSAGES), suffix=SUFFIX)
def test_implicit_conversations_come_back(folder, records, suffix):
    path = data.write_preferences(folder / f"b{suffix}", records, "implicit")
    assert list(data.read_preferences(path)) == records


@given(records=pairs(TEXT) | pairs(MESSAGES), format=st.sampled_from(["implicit", "hh"]))
def test_a_format_holds_a_pair_unchanged_or_refuses_it(folder, records, format):
    try:
        path = data.write_preferences(folder / "c.jsonl", records, format)
    except errors.InvalidDataError as error:
        assert "cannot be written" in str(error)
        return
    assert list(data.read_preferences(path)) == records


def test_transcripts_come_back(folder):
    talk = [user("Hi"), assistant("Hello."), user("Why?")]
    records = [Preference(talk, "So.", ""), Preference(talk[:1], " a", "a \n")]
    path = data.write_preferences(folder / "d.jsonl.gz", records, "hh")
    read = data.read_preferences(path)
    assert list(read) == records and read.report.formats == {"HH-RLHF transcript": 2}


@given(
    records=st.lists(st.builds(Demonstration, TEXT, TEXT), min_size=1, max_size=4)
    | st.lists(st.builds(Demonstration, MESSAGES, TEXT), min_size=1, max_size=4),
    suffix=SUFFIX,
)
def test_demonstrations_come_back(folder, records, suffix):
    assert (
        list(data.read_demonstrations(data.write_demonstrations(folder / f"e{suffix}", records)))
        == records
    )
    if not isinstance(records[0].prompt, str):
        path = data.write_demonstrations(folder / f"f{suffix}", records, "messages")
        assert list(data.read_demonstrations(path)) == records


@given(
    records=st.lists(st.builds(Unpaired, TEXT, TEXT, st.booleans()), min_size=1, max_size=4)
    | st.lists(st.builds(Unpaired, MESSAGES, TEXT, st.booleans()), min_size=1, max_size=4),
    suffix=SUFFIX,
)
def test_unpaired_come_back(folder, records, suffix):
    path = data.write_unpaired(folder / f"g{suffix}", records)
    assert list(data.read_unpaired(path)) == records
    assert list(data.read_prompts(path)) == [record.prompt for record in records]


PAIR = Preference("p", "c", "r")
UNWRITABLE = [
    (
        lambda path: data.write_preferences(path, [PAIR, Preference("p", "c", "c")]),
        "Record 1 .*equal",
    ),
    (lambda path: data.write_preferences(path, [PAIR], "hh"), "its prompt is a text"),
    (lambda path: data.write_preferences(path, [PAIR], "csv"), "no such format"),
    (
        lambda path: data.write_preferences(path, [Preference("a b", "c", "d")], "implicit"),
        "read back",
    ),
    (
        lambda path: data.write_preferences(path, [Preference(TALK, "c", "d")], "hh"),
        "user and assistant",
    ),
    (
        lambda path: data.write_preferences(
            path, [Preference([user("\n\nHuman: b")], "c", "d")], "hh"
        ),
        "read back",
    ),
    (
        lambda path: data.write_preferences(path, [Preference("p", "c", "r", float("nan"))]),
        "finite",
    ),
    (lambda path: data.write_preferences(path, [Preference("p", "\ud800", "r")]), "surrogate"),
    (
        lambda path: data.write_preferences(path, [Preference(tuple(TALK), "c", "r")]),
        "of type tuple",
    ),
    (lambda path: data.write_preferences(path, [Preference(None, "c", "r")]), "cannot be written"),
    (
        lambda path: data.write_demonstrations(path, [Demonstration("p", "c")], "messages"),
        "as_messages",
    ),
    (
        lambda path: data.write_demonstrations(path, [Demonstration("p", "c")], "csv"),
        "no such format",
    ),
    (lambda path: data.write_unpaired(path, [Unpaired("p", "c", None)]), "without label"),
]


@pytest.mark.parametrize(("write", "reason"), UNWRITABLE)
def test_what_cannot_be_written_is_named(tmp_path, write, reason):
    with pytest.raises(errors.InvalidDataError, match=reason):
        write(tmp_path / "a.jsonl")
    assert not list(tmp_path.iterdir())


def test_a_text_becomes_a_conversation():
    assert data.as_messages("p") == [user("p")]
    assert data.as_messages(TALK) is TALK
