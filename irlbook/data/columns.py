"""What the columns of a row mean, and which of them must not be dropped.

Nothing that changes the prompt or the answer is dropped without a word: it is used, or the row is
`Rejected` with the mend. What cannot matter (id, source, score ...) is ignored, and the report
names it once.

| column | what it becomes |
|---|---|
| `prompt` | the prompt |
| `instruction`, `question`, `query` or `input`, alone | the prompt |
| `instruction` and `input` (Alpaca) | the prompt: both, with an empty line between |
| `system`, `system_prompt` | a system message before the prompt |
| `completion`, `response` or `output`; else `answer`, `target` or `solution` | the answer |
| `context`, `history`, `text` ... | refused, unless the prompt has it already |
| `tools`, `images`, `thinking`, `weight` ... | refused, unless empty |

Alpaca's own preamble ("Below is an instruction ...") is not put before: a model's chat template
marks the turns.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from irlbook.data.records import Message, Prompt
from irlbook.data.report import Rejected

__all__ = [
    "ANSWERS",
    "ANSWER_COLUMNS",
    "LAST_ANSWERS",
    "PROMPTS",
    "PROMPT_COLUMNS",
    "ROLES",
    "SYSTEMS",
    "answer_of",
    "check_answer_parts",
    "check_names",
    "check_prompt_parts",
    "column",
    "columns_of",
    "ended_of",
    "find_prompt",
    "is_empty",
    "kind_of",
    "prompt_of",
    "said",
    "text_of",
    "unread",
    "with_system",
]

ROLES = ("system", "developer", "user", "assistant", "tool")

PROMPTS = ("prompt", "instruction", "question", "query", "input")
ANSWERS = ("completion", "response", "output")
LAST_ANSWERS = ("answer", "target", "solution")  # beside one of the above: what a checker compares
SYSTEMS = ("system", "system_prompt")

# Parts of a prompt whose place in it nobody knows.
_CONTEXTS = tuple(
    "context contexts history dialogue dialog conversation conversations passage passages article "
    "post text prompts instructions questions inputs queries".split()
)
_RENDERINGS = ("text", "conversation", "conversations", "dialogue", "dialog")  # prompt and answer
_SHAPE_PROMPTS = tuple(
    "tools functions documents chat_template chat_template_kwargs image images audio audios video "
    "videos".split()
)
_SHAPE_ANSWERS = ("reasoning", "reasoning_content", "thinking", "loss_mask", "completion_mask")
_SHAPE_MESSAGES = tuple(
    "tool_calls function_call tool_call_id tools name recipient channel reasoning refusal prefix "
    "reasoning_content thinking images audio documents".split()
)

PROMPT_COLUMNS = {*PROMPTS, *SYSTEMS, *_CONTEXTS, *_SHAPE_PROMPTS}
ANSWER_COLUMNS = {*ANSWERS, *LAST_ANSWERS, *_SHAPE_ANSWERS, "weight", "train", "ended"}
_MESSAGE_KEYS = {"role", "content", "weight", "train", *_SHAPE_MESSAGES}


def columns_of(row: Any, *columns: str) -> Mapping[str, Any]:
    """The row, which must be an object that has these columns."""
    if not isinstance(row, Mapping):
        raise Rejected(f"the row is {kind_of(row)}; an object with columns is expected")
    missing = [column for column in columns if row.get(column) is None]
    if missing:
        there = [str(key)[:30] for key in list(row)[:8] if row[key] is not None]
        raise Rejected(f"without {', '.join(missing)} (there is: {', '.join(there) or 'nothing'})")
    return row


def unread(read: Collection[str]) -> Callable[[Any], list[str]]:
    """From a row to the names of what it holds beside `read`, keys of its messages included."""

    def names(row: Mapping[str, Any]) -> list[str]:
        found = [str(key)[:40] for key in row if key not in read and row[key] is not None]
        for column in row:
            if column in read and isinstance(row[column], list):
                keys = {key for one in row[column] if isinstance(one, Mapping) for key in one}
                found += sorted(f"{column}[].{str(key)[:40]}" for key in keys - _MESSAGE_KEYS)
        return found

    return names


def check_names(row: Mapping[str, Any], read: Collection[str]) -> None:
    """Refuse a column whose name is one that is read but for case or blanks: `Prompt`."""
    for key, value in row.items():
        plain = str(key).strip().lower()
        if value is not None and plain != key and plain in read:
            raise Rejected(f"the column {str(key)[:40]!r} is not {plain!r}; rename it or drop it")


def check_prompt_parts(row: Mapping[str, Any], *said: Any) -> None:
    """Refuse columns that would change a prompt, and that no text or message of `said` holds."""
    _refuse(row, _SHAPE_PROMPTS, "would change the prompt")
    for name in _CONTEXTS:
        value = row.get(name)
        if is_empty(value) or not isinstance(value, str | list | Mapping):
            continue
        held = any(_holds(one, value) for one in said)
        if not held and not (name in _RENDERINGS and any(_holds(value, one) for one in said)):
            raise Rejected(
                f"{name} may be a part of the prompt, and the prompt does not hold it: put it into "
                f"a column prompt, or drop {name}"
            )


def check_answer_parts(row: Mapping[str, Any]) -> None:
    """Refuse columns that would change an answer, or whether and how much it is learned."""
    _refuse(row, _SHAPE_ANSWERS, "would change the answer")
    if row.get("weight") not in (None, 1) or row.get("train") not in (None, True):
        raise Rejected(
            "weight or train asks to weigh this row; rows are trained on as they are, so drop the "
            "row or the column"
        )


def _refuse(row: Mapping[str, Any], names: Iterable[str], what: str) -> None:
    for name in names:
        if not is_empty(row.get(name)):
            raise Rejected(f"{name} {what}, and is not read: drop the row, or the column if it can")


def prompt_of(row: Mapping[str, Any]) -> tuple[str, Prompt]:
    """Which columns hold the prompt, and the prompt; rejected where none does."""
    found = find_prompt(row)
    if found is None:
        columns_of(row, "prompt")
        raise Rejected("without a prompt")
    return found


def find_prompt(row: Mapping[str, Any]) -> tuple[str, Prompt] | None:
    """Which columns hold the prompt, and the prompt; None where none does.

    Two that could both be it and say different things are refused, but for Alpaca's pair.
    """
    given = {name: row[name] for name in PROMPTS if not is_empty(row.get(name))}
    if row.get("prompt") is not None:
        prompt = column(row, "prompt")
        for name in given:
            if name != "prompt" and not _holds(prompt, row[name]):
                raise Rejected(f"prompt and {name} could both be the prompt: {_RENAME}")
        return "prompt", prompt
    if not given:
        return None
    values = {name: column(row, name) for name in given}
    if set(given) == {"instruction", "input"}:
        parts = [text_of(row[name], name) for name in ("instruction", "input")]
        return "instruction + input", "\n\n".join(parts)
    (name, prompt), *others = values.items()
    if any(other != prompt for _, other in others):
        raise Rejected(f"{' and '.join(given)} could each be the prompt: {_RENAME}")
    return name, prompt


_RENAME = "join them in a column prompt, or drop what is no part of it"


def with_system(row: Mapping[str, Any], prompt: Prompt) -> Prompt:
    """The prompt with the message of a column `system` before it, if there is one."""
    given = {name: row[name] for name in SYSTEMS if not is_empty(row.get(name))}
    for name, value in given.items():
        system = said("system", text_of(value, name))
        if isinstance(prompt, str):
            prompt = [system, said("user", prompt)]
        elif prompt[0]["role"] not in ("system", "developer"):
            prompt = [system, *prompt]
        elif prompt[0]["content"] != system["content"]:
            raise Rejected(f"{name} and the first message are different system messages; drop one")
    return prompt


def answer_of(row: Mapping[str, Any]) -> tuple[str, str | list[Message]]:
    """Which column holds the answer, and the answer."""
    given = [name for name in ANSWERS if row.get(name) is not None]
    given = given or [name for name in LAST_ANSWERS if row.get(name) is not None]
    if not given:
        columns_of(row, "completion")
    values = [column(row, name, answer=True) for name in given]
    if any(value != values[0] for value in values):
        raise Rejected(f"{' and '.join(given)} could each be the answer: drop all but one")
    return given[0], values[0]


def ended_of(row: Mapping[str, Any]) -> bool:
    """Whether the answer ended by itself: False where `irlbook sample` cut it off."""
    ended = row.get("ended")
    if ended is None or isinstance(ended, bool):
        return ended is not False
    raise Rejected("ended is neither true nor false")


# --- values ---------------------------------------------------------------------------------------


def column(row: Mapping[str, Any], name: str, *, answer: bool = False) -> str | list[Message]:
    """A text, or a list of messages; the last message of an `answer` is what is learned."""
    value = row[name]
    if isinstance(value, str):
        if value.lstrip().startswith(('[{"role"', "[{'role'", '[{"content"', "[{'content'")):
            raise Rejected(f"{name} is a list of messages that is written as a text; keep the list")
        return text_of(value, name)
    if not isinstance(value, list):
        raise Rejected(f"{name} is {kind_of(value)}; a text or a list of messages is expected")
    if not value:
        raise Rejected(f"{name} is an empty list")
    messages = [_message(message, f"{name}[{i}]") for i, message in enumerate(value)]
    if answer and (value[-1].get("weight") not in (None, 1) or value[-1].get("train") is False):
        raise Rejected(f"weight or train says that {name}[{len(value) - 1}] is not to be learned")
    return messages


def _message(value: Any, name: str) -> Message:
    if not isinstance(value, Mapping):
        raise Rejected(f"{name} is {kind_of(value)}; a message (role, content) is expected")
    role, content = value.get("role"), value.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise Rejected(f"the role of {name} is none of {', '.join(ROLES)}")
    if not is_empty(value.get("tool_calls")):
        raise Rejected(f"{name} calls a tool; only text is read")
    for key in _SHAPE_MESSAGES:
        if not is_empty(value.get(key)):
            raise Rejected(
                f"{name} has {key}, which is not read: drop the row, or the key if it can"
            )
    return said(role, text_of(content, f"the content of {name}"))


def text_of(value: Any, name: str) -> str:
    """The value, which must be a text that UTF-8 can hold."""
    if not isinstance(value, str):
        raise Rejected(f"{name} is {kind_of(value)}; a text is expected")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Rejected(f"{name} holds half of a surrogate pair, which is no character") from None
    return value


def said(role: str, content: str) -> Message:
    """A message."""
    return {"role": role, "content": content}


def is_empty(value: Any) -> bool:
    """Nothing is there: null, or an empty text, list or object, also as tables write them."""
    if isinstance(value, str | list | tuple | Mapping):
        return not value or value in ("[]", "{}", "null")
    return value is None or value is False


def kind_of(value: Any) -> str:
    """What a value of JSON is, in words."""
    names = {type(None): "missing", dict: "an object", list: "a list", bool: "true or false"}
    names |= {str: "a text", int: "a number", float: "a number"}
    return names.get(type(value), f"of type {type(value).__name__}")


def _holds(whole: Any, part: Any) -> bool:
    """Does a text or conversation hold every text of another one?"""
    texts, inside = _texts(part), "\n".join(_texts(whole))
    return bool(texts) and all(text in inside for text in texts)


def _texts(value: Any) -> list[str]:
    """A text, or the texts of a conversation's messages; nothing of anything else."""
    if isinstance(value, str):
        return [value.strip()]
    if not isinstance(value, list):
        return []
    texts = [
        one.get("content", one.get("value")) if isinstance(one, Mapping) else one for one in value
    ]
    return [text.strip() for text in texts] if all(isinstance(t, str) for t in texts) else []
