"""From rows to records and back, in TRL's formats and as HH-RLHF transcripts.

| format | columns |
|---|---|
| explicit prompt | `prompt`, `chosen`, `rejected` |
| implicit prompt | `chosen`, `rejected`, both with the prompt in front |
| HH-RLHF transcript | `chosen`, `rejected`, as "\\n\\nHuman: ...\\n\\nAssistant: ..." |
| unpaired | `prompt`, `completion`, `label` |
| prompt-completion | `prompt`, `completion` |
| messages | `messages` |
| prompt only | `prompt` |

Each column is a text, or a conversation (a list of messages). Other columns are ignored. A row
that does not fit raises `Rejected` with the reason, which never quotes the row's text.
"""

import math
import os
import re
from collections.abc import Mapping
from typing import Any

from irlbook.data.records import Demonstration, Message, Preference, Prompt, Unpaired
from irlbook.data.report import Rejected

ROLES = ("system", "developer", "user", "assistant", "tool")

_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}


# --- from rows ------------------------------------------------------------------------------------


def preference_from(row: Any) -> tuple[str, Preference]:
    """A pair, with its prompt given or found as what the two texts share."""
    row = columns_of(row, "chosen", "rejected")
    chosen, rejected = _column(row, "chosen"), _column(row, "rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise Rejected("one of chosen and rejected is a text, the other a list of messages")
    if chosen == rejected:
        raise Rejected("chosen and rejected are equal", "identical")
    if row.get("prompt") is not None:
        kind, prompt = "explicit prompt", _column(row, "prompt")
        if isinstance(prompt, list) and isinstance(chosen, str):
            raise Rejected("prompt is a list of messages, but chosen and rejected are texts")
        if isinstance(chosen, list) and isinstance(rejected, list):
            kind += ", conversational"
            opening = [_said("user", prompt)] if isinstance(prompt, str) else prompt
            prompt, chosen, rejected = split_messages(
                _after(opening, chosen), _after(opening, rejected)
            )
    elif isinstance(chosen, list) and isinstance(rejected, list):
        kind = "implicit prompt, conversational"
        prompt, chosen, rejected = split_messages(chosen, rejected)
    elif is_transcript(chosen) and is_transcript(rejected):
        kind = "HH-RLHF transcript"
        prompt, chosen, rejected = split_messages(
            read_transcript(chosen), read_transcript(rejected)
        )
    else:
        kind = "implicit prompt"
        prompt, chosen, rejected = split_texts(chosen, rejected)
    return kind, Preference(prompt, chosen, rejected, _margin(row))


def unpaired_from(row: Any) -> tuple[str, Unpaired]:
    """A labelled response. The label is true or false; 1 and 0 will do."""
    row = columns_of(row, "prompt", "completion", "label")
    kind, prompt, response = _continued(row)
    label = row["label"]
    if label not in (True, False):
        raise Rejected("label is neither true nor false")
    return f"unpaired{kind}", Unpaired(prompt, response, bool(label))


def demonstration_from(row: Any) -> tuple[str, Demonstration]:
    """A demonstration. Of a conversation the last turn is the response, the rest the prompt."""
    if isinstance(row, Mapping) and row.get("messages") is not None:
        messages = _column(row, "messages")
        if isinstance(messages, str):
            raise Rejected("messages is a text; a list of messages is expected")
        return "messages", Demonstration(*_last_turn(messages))
    row = columns_of(row, "prompt", "completion")
    kind, prompt, response = _continued(row)
    return f"prompt-completion{kind}", Demonstration(prompt, response)


def prompt_from(row: Any) -> tuple[str, Prompt]:
    """A prompt alone, to sample responses to; other columns may stand beside it."""
    prompt = _column(columns_of(row, "prompt"), "prompt")
    return ("prompt only", prompt) if isinstance(prompt, str) else ("prompt messages", prompt)


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
        _said(_HH_ROLES[speaker], said.removeprefix(" "))
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def write_transcript(messages: list[Message]) -> str:
    """The HH-RLHF transcript of messages by user and assistant."""
    names = {role: name for name, role in _HH_ROLES.items()}
    if any(message["role"] not in names for message in messages):
        raise Rejected("a transcript has turns by user and assistant only")
    return "".join(f"\n\n{names[m['role']]}: {m['content']}" for m in messages)


def columns_of(row: Any, *columns: str) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise Rejected(f"the row is {_kind(row)}; an object with columns is expected")
    missing = [column for column in columns if row.get(column) is None]
    if missing:
        there = ", ".join(str(key)[:30] for key in list(row)[:8] if row[key] is not None)
        raise Rejected(f"without {', '.join(missing)} (there is: {there or 'nothing'})")
    return row


def _column(row: Mapping[str, Any], name: str) -> str | list[Message]:
    value = row[name]
    if isinstance(value, str):
        return text_of(value, name)
    if not isinstance(value, list):
        raise Rejected(f"{name} is {_kind(value)}; a text or a list of messages is expected")
    if not value:
        raise Rejected(f"{name} is an empty list")
    return [_message(message, f"{name}[{i}]") for i, message in enumerate(value)]


def _message(value: Any, name: str) -> Message:
    if not isinstance(value, Mapping):
        raise Rejected(f"{name} is {_kind(value)}; a message (role, content) is expected")
    role, content = value.get("role"), value.get("content")
    if role not in ROLES:
        raise Rejected(f"the role of {name} is none of {', '.join(ROLES)}")
    if value.get("tool_calls"):
        raise Rejected(f"{name} calls a tool; only text is read")
    return _said(role, text_of(content, f"the content of {name}"))


def text_of(value: Any, name: str) -> str:
    """The value, which must be a text that UTF-8 can hold."""
    if not isinstance(value, str):
        raise Rejected(f"{name} is {_kind(value)}; a text is expected")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Rejected(f"{name} holds half of a surrogate pair, which is no character") from None
    return value


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


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
    if turns[0]["role"] != "assistant":
        raise Rejected("chosen or rejected neither repeats the prompt nor begins with the reply")
    return opening + turns


def _continued(row: Mapping[str, Any]) -> tuple[str, Prompt, str]:
    prompt, completion = _column(row, "prompt"), _column(row, "completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        return "", prompt, completion
    if isinstance(prompt, str) or isinstance(completion, str):
        raise Rejected("one of prompt and completion is a text, the other a list of messages")
    if len(completion) != 1 or completion[0]["role"] != "assistant":
        raise Rejected("completion is not one message by the assistant")
    return ", conversational", prompt, completion[0]["content"]


def _margin(row: Mapping[str, Any]) -> float | None:
    margin = row.get("margin")
    if margin is None:
        return None
    if isinstance(margin, bool) or not isinstance(margin, int | float):
        raise Rejected(f"margin is {_kind(margin)}; a number is expected")
    if not math.isfinite(margin):
        raise Rejected("margin is not finite")
    return float(margin)


def _kind(value: Any) -> str:
    names = {type(None): "missing", dict: "an object", list: "a list", bool: "true or false"}
    names |= {str: "a text", int: "a number", float: "a number"}
    return names.get(type(value), f"of type {type(value).__name__}")


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
            return {"prompt": shown.prompt, "completion": completion}
        case "messages":
            return {"messages": _conversation(shown.prompt, shown.response)}
        case _:
            raise Rejected("there is no such format; take prompt-completion or messages")


def unpaired_row(one: Unpaired) -> dict[str, Any]:
    """A labelled response as a row."""
    completion = _completion(one.prompt, one.response)
    return {"prompt": one.prompt, "completion": completion, "label": one.label}


def _conversation(prompt: Prompt, response: str) -> list[Message]:
    if isinstance(prompt, str):
        raise Rejected("its prompt is a text, not a list of messages")
    return [*prompt, _said("assistant", response)]


def _completion(prompt: Prompt, response: str) -> str | list[Message]:
    return response if isinstance(prompt, str) else [_said("assistant", response)]


def as_messages(prompt: Prompt) -> list[Message]:
    """A prompt as a conversation: a text becomes the user's one message."""
    return [_said("user", prompt)] if isinstance(prompt, str) else prompt
