"""From rows to records and back, in TRL's formats and as HH-RLHF transcripts.

| format | columns |
|---|---|
| explicit prompt | `prompt`, `chosen`, `rejected` |
| implicit prompt | `chosen`, `rejected`, both with the prompt in front |
| HH-RLHF transcript | `chosen`, `rejected`, as "\\n\\nHuman: ...\\n\\nAssistant: ..." |
| unpaired | `prompt`, `completion`, `label` |
| prompt-completion | `prompt`, `completion` |
| messages | `messages`; the last turn is the response |
| prompt only | `prompt` |

Each column is a text, or a conversation (a list of messages). Other names that the prompt and the
completion may have, and what becomes of other columns, stand in `columns`. A row that does not fit,
or that could be read in two ways, raises `Rejected` with the reason, which never quotes its text.
"""

import math
import os
import re
from collections.abc import Mapping
from typing import Any

from irlbook.data.columns import (
    ANSWER_COLUMNS,
    ANSWERS,
    LAST_ANSWERS,
    PROMPT_COLUMNS,
    answer_of,
    check_answer_parts,
    check_names,
    check_prompt_parts,
    column,
    columns_of,
    ended_of,
    find_prompt,
    kind_of,
    prompt_of,
    said,
    with_system,
)
from irlbook.data.records import Demonstration, Message, Preference, Prompt, Unpaired
from irlbook.data.report import Rejected

__all__ = [
    "DEMONSTRATION_COLUMNS",
    "PREFERENCE_COLUMNS",
    "UNPAIRED_COLUMNS",
    "as_messages",
    "demonstration_from",
    "demonstration_row",
    "is_transcript",
    "preference_from",
    "preference_row",
    "prompt_from",
    "read_transcript",
    "split_messages",
    "split_texts",
    "unpaired_from",
    "unpaired_row",
    "write_transcript",
]

# What each reader looks at; the report names the other columns.
PREFERENCE_COLUMNS = {*PROMPT_COLUMNS, *ANSWER_COLUMNS, "chosen", "rejected", "margin"}
PREFERENCE_COLUMNS -= {*ANSWERS, *LAST_ANSWERS}
DEMONSTRATION_COLUMNS = {*PROMPT_COLUMNS, *ANSWER_COLUMNS, "messages"}
UNPAIRED_COLUMNS = {*PROMPT_COLUMNS, *ANSWER_COLUMNS, "label"}

_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}
_REPEATED = 20  # letters of a prompt that two answers do not both begin with by chance


# --- from rows ------------------------------------------------------------------------------------


def preference_from(row: Any) -> tuple[str, Preference]:
    """A pair, with its prompt given or found as what the two texts share."""
    check_names(columns_of(row), PREFERENCE_COLUMNS)
    row = columns_of(row, "chosen", "rejected")
    check_answer_parts(row)
    if not ended_of(row):
        raise Rejected("ended does not say which of chosen and rejected was cut: drop the row")
    chosen, rejected = (column(row, name, answer=True) for name in ("chosen", "rejected"))
    given = find_prompt(row)
    check_prompt_parts(row, *([given[1]] if given else [chosen, rejected]))
    if isinstance(chosen, str) and isinstance(rejected, str):
        kind, prompt, better, worse = _texts(given, chosen, rejected)
    elif isinstance(chosen, list) and isinstance(rejected, list):
        if given is None and len(chosen) == len(rejected) == 1 and row.get("messages"):
            raise Rejected("the messages of a pair stand in the column prompt: rename messages")
        kind, prompt, better, worse = _conversations(given, chosen, rejected)
    else:
        raise Rejected("one of chosen and rejected is a text, the other a list of messages")
    if kind == "implicit prompt" and with_system(row, prompt) != prompt:
        raise Rejected("a system message stands beside texts that hold their prompt: give a prompt")
    return kind, Preference(with_system(row, prompt), better, worse, _margin(row))


def unpaired_from(row: Any) -> tuple[str, Unpaired]:
    """A labelled response. The label is true or false; 1 and 0 will do."""
    check_names(columns_of(row), UNPAIRED_COLUMNS)
    columns_of(row, "label")
    kind, prompt, response = _continued(row)
    label = row["label"]
    if label not in (True, False):
        raise Rejected("label is neither true nor false")
    return f"unpaired{kind}", Unpaired(prompt, response, bool(label), ended_of(row))


def demonstration_from(row: Any) -> tuple[str, Demonstration]:
    """A demonstration. Of a conversation the last turn is the response, the rest the prompt."""
    check_names(columns_of(row), DEMONSTRATION_COLUMNS)
    if row.get("messages") is None:
        kind, prompt, response = _continued(row)
        return f"prompt-completion{kind}", Demonstration(prompt, response, ended_of(row))
    check_answer_parts(row)
    messages = column(row, "messages", answer=True)
    if isinstance(messages, str):
        raise Rejected("messages is a text; a list of messages is expected")
    prompt, response = _last_turn(messages)
    check_prompt_parts(row, prompt)
    given = find_prompt(row)
    if given and not all(one in prompt for one in as_messages(given[1])):
        raise Rejected(f"messages does not hold what {given[0]} says; drop one of them")
    if any(row.get(name) is not None for name in ANSWERS):
        name, answer = answer_of(row)
        if answer not in (response, [said("assistant", response)]):
            raise Rejected(f"messages and {name} end with different answers; drop one of them")
    return "messages", Demonstration(with_system(row, prompt), response, ended_of(row))


def prompt_from(row: Any) -> tuple[str, Prompt]:
    """A prompt alone, to sample responses to; other columns may stand beside it."""
    check_names(columns_of(row), PROMPT_COLUMNS)
    name, prompt = prompt_of(row)
    check_prompt_parts(row, prompt)
    kind = "prompt only" if isinstance(prompt, str) else "prompt messages"
    return kind + _in(name), with_system(row, prompt)


def _in(name: str) -> str:
    return "" if name == "prompt" else f", prompt in {name}"


def _texts(
    given: tuple[str, Prompt] | None, chosen: str, rejected: str
) -> tuple[str, Prompt, str, str]:
    """Format, prompt and responses of two texts."""
    if chosen == rejected:
        raise Rejected("chosen and rejected are equal", "identical")
    transcripts = [is_transcript(text) for text in (chosen, rejected)]
    if all(transcripts):
        turns = [read_transcript(text) for text in (chosen, rejected)]
        if given and isinstance(given[1], str) and is_transcript(given[1]):
            given = given[0], _question(given[1])
        kind, prompt, better, worse = _conversations(given, *turns)
        return ("HH-RLHF transcript" if given is None else kind), prompt, better, worse
    if any(transcripts) or any(text.startswith("Human:") for text in (chosen, rejected)):
        raise Rejected('only a part of the pair begins with "\\n\\nHuman:", as transcripts do')
    if given is None:
        return "implicit prompt", *split_texts(chosen, rejected)
    name, prompt = given
    kind = "explicit prompt" + _in(name)
    if isinstance(prompt, list):
        raise Rejected(f"{name} is a list of messages, but chosen and rejected are texts")
    if is_transcript(prompt):
        return kind + ", HH-RLHF transcript", _question(prompt), chosen.strip(), rejected.strip()
    if len(prompt) >= _REPEATED and all(text.startswith(prompt) for text in (chosen, rejected)):
        raise Rejected(
            f"chosen and rejected both repeat {name}: drop the column, or the repetition"
        )
    return kind, prompt, chosen, rejected


def _conversations(
    given: tuple[str, Prompt] | None, chosen: list[Message], rejected: list[Message]
) -> tuple[str, Prompt, str, str]:
    """Format, prompt and responses of two conversations."""
    if chosen == rejected:
        raise Rejected("chosen and rejected are equal", "identical")
    kind = "implicit prompt, conversational"
    if given is not None:
        kind = f"explicit prompt{_in(given[0])}, conversational"
        opening = as_messages(given[1])
        chosen, rejected = _after(opening, chosen), _after(opening, rejected)
    return kind, *split_messages(chosen, rejected)


def split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Prompt, chosen and rejected of two different texts that begin alike.

    The prompt is what they share, up to the last white space: the responses begin with whole
    words. A blank there goes to the responses, a line break to the prompt. Two responses that
    begin with the same words lose them to the prompt: give the prompt explicitly where you can.
    """
    shared = os.path.commonprefix([chosen, rejected])
    cut = next((i for i in range(len(shared) - 1, -1, -1) if shared[i].isspace()), -1)
    cut += cut >= 0 and shared[cut] != " "
    if cut <= 0:
        raise Rejected("chosen and rejected do not begin with a shared prompt", "no shared prompt")
    return chosen[:cut], chosen[cut:], rejected[cut:]


def split_messages(
    chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], str, str]:
    """Prompt, chosen and rejected of two conversations that differ in the last turn only."""
    (prompt, better), (other, worse) = _last_turn(chosen), _last_turn(rejected)
    if prompt != other:
        raise Rejected("the conversations differ before the last turn", "no shared prompt")
    if better == worse:
        raise Rejected("chosen and rejected are equal", "identical")
    return prompt, better, worse


def is_transcript(text: str) -> bool:
    """Does a text begin like an HH-RLHF transcript?"""
    return text.startswith("\n\nHuman:")


def read_transcript(text: str) -> list[Message]:
    """The messages of an HH-RLHF transcript."""
    before, *parts = _TURN.split(text)
    if before or not parts:
        raise Rejected('the transcript does not begin with "\\n\\nHuman:"')
    return [
        said(_HH_ROLES[speaker], text.removeprefix(" "))
        for speaker, text in zip(parts[::2], parts[1::2], strict=True)
    ]


def _question(text: str) -> list[Message]:
    """The messages of a transcript that stops where the assistant is to speak."""
    messages = read_transcript(text)
    if messages[-1] == said("assistant", ""):
        messages.pop()
    if messages[-1]["role"] != "user":
        raise Rejected("the transcript of the prompt does not stop before the assistant's turn")
    return messages


def write_transcript(messages: list[Message]) -> str:
    """The HH-RLHF transcript of messages by user and assistant."""
    names = {role: name for name, role in _HH_ROLES.items()}
    if any(message["role"] not in names for message in messages):
        raise Rejected("a transcript has turns by user and assistant only")
    return "".join(f"\n\n{names[m['role']]}: {m['content']}" for m in messages)


def _last_turn(messages: list[Message]) -> tuple[list[Message], str]:
    if messages[-1]["role"] != "assistant":
        raise Rejected("the last message is not the assistant's")
    if len(messages) == 1:
        raise Rejected("no message stands before the response")
    return messages[:-1], messages[-1]["content"]


def _after(opening: list[Message], turns: list[Message]) -> list[Message]:
    """The whole conversation, where `turns` may or may not repeat its opening."""
    if len(turns) > len(opening) and turns[: len(opening)] == opening:
        return turns
    if turns[0]["role"] == "system" and all(message in turns[1:-1] for message in opening):
        return turns
    if turns[0]["role"] != "assistant":
        raise Rejected("chosen or rejected neither repeats the prompt nor begins with the reply")
    return opening + turns


def _continued(row: Mapping[str, Any]) -> tuple[str, Prompt, str]:
    """Which format, if not two texts in `prompt` and `completion`; prompt and response."""
    given, (name, answer) = prompt_of(row), answer_of(row)
    check_answer_parts(row)
    check_prompt_parts(row, given[1])
    prompt = with_system(row, given[1])
    kind = _in(given[0]) + ("" if name == "completion" else f", answer in {name}")
    if isinstance(given[1], str) and isinstance(answer, str):
        return kind, prompt, answer
    if isinstance(given[1], str) or isinstance(answer, str):
        raise Rejected(f"one of {given[0]} and {name} is a text, the other a list of messages")
    if len(answer) != 1 or answer[0]["role"] != "assistant":
        raise Rejected(f"{name} is not one message by the assistant")
    return f"{kind}, conversational", prompt, answer[0]["content"]


def _margin(row: Mapping[str, Any]) -> float | None:
    margin = row.get("margin")
    if margin is None:
        return None
    if isinstance(margin, bool) or not isinstance(margin, int | float):
        raise Rejected(f"margin is {kind_of(margin)}; a number is expected")
    try:
        number = float(margin)
    except OverflowError:  # a whole number of 400 digits, say
        raise Rejected("margin is too large for a number with a point") from None
    if not math.isfinite(number):
        raise Rejected("margin is not finite")
    return number


# --- to rows --------------------------------------------------------------------------------------


def preference_row(pair: Preference, format: str = "explicit") -> dict[str, Any]:
    """A pair as a row: "explicit", "implicit" or "hh" (see the module's top)."""
    prompt, replies = pair.prompt, {"chosen": pair.chosen, "rejected": pair.rejected}
    match format:
        case "explicit":
            row: dict[str, Any] = {"prompt": prompt}
            row |= {key: _completion(prompt, reply) for key, reply in replies.items()}
        case "implicit" if isinstance(prompt, str):
            row = {key: prompt + reply for key, reply in replies.items()}
        case "implicit":
            row = {key: _conversation(prompt, reply) for key, reply in replies.items()}
        case "hh":
            row = {
                key: write_transcript(_conversation(prompt, reply))
                for key, reply in replies.items()
            }
        case _:
            raise Rejected("there is no such format; take explicit, implicit or hh")
    return row if pair.margin is None else row | {"margin": pair.margin}


def demonstration_row(shown: Demonstration, format: str = "prompt-completion") -> dict[str, Any]:
    """A demonstration as a row: "prompt-completion" or "messages"."""
    match format:
        case "prompt-completion":
            completion = _completion(shown.prompt, shown.response)
            row: dict[str, Any] = {"prompt": shown.prompt, "completion": completion}
        case "messages":
            row = {"messages": _conversation(shown.prompt, shown.response)}
        case _:
            raise Rejected("there is no such format; take prompt-completion or messages")
    return row if shown.ended else row | {"ended": False}


def unpaired_row(one: Unpaired) -> dict[str, Any]:
    """A labelled response as a row."""
    completion = _completion(one.prompt, one.response)
    row = {"prompt": one.prompt, "completion": completion, "label": one.label}
    return row if one.ended else row | {"ended": False}


def _conversation(prompt: Prompt, response: str) -> list[Message]:
    if isinstance(prompt, str):
        raise Rejected("its prompt is a text, not a list of messages")
    return [*prompt, said("assistant", response)]


def _completion(prompt: Prompt, response: str) -> str | list[Message]:
    return response if isinstance(prompt, str) else [said("assistant", response)]


def as_messages(prompt: Prompt) -> list[Message]:
    """A prompt as a conversation: a text becomes the user's one message."""
    return [said("user", prompt)] if isinstance(prompt, str) else prompt
