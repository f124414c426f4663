"""Readers of training data in TRL's formats, and writers back to them.

Each reader takes a path, a name under the folder in IRLBOOK_DATA, or a name of the Hugging Face
hub, finds out the format row by row, and returns `Records`: a sequence with a `report`.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from irlbook.data.columns import PROMPT_COLUMNS, unread
from irlbook.data.files import write_rows
from irlbook.data.formats import (
    DEMONSTRATION_COLUMNS,
    PREFERENCE_COLUMNS,
    UNPAIRED_COLUMNS,
    demonstration_from,
    demonstration_row,
    preference_from,
    preference_row,
    prompt_from,
    unpaired_from,
    unpaired_row,
)
from irlbook.data.records import Demonstration, Preference, Prompt, Unpaired
from irlbook.data.report import Records, Rejected, collect
from irlbook.errors import InvalidDataError

__all__ = [
    "read_demonstrations",
    "read_preferences",
    "read_prompts",
    "read_unpaired",
    "write_demonstrations",
    "write_preferences",
    "write_unpaired",
]

_T = TypeVar("_T")


def read_preferences(name: str | Path, **options: Any) -> Records[Preference]:
    """Pairs: explicit prompt, implicit prompt, conversational, or HH-RLHF transcripts.

    Args:
        name: a file (.jsonl, .jsonl.gz, .json, .parquet), a folder of these, a name under the
            folder in IRLBOOK_DATA, or "owner/name" of the hub.
        options: `strict`, `split`, `usual_split`, `most_bytes`, `most_line_bytes` of
            `report.collect`, which tells the errors raised too.
    """
    return collect(name, preference_from, unused=unread(PREFERENCE_COLUMNS), **options)


def read_demonstrations(name: str | Path, **options: Any) -> Records[Demonstration]:
    """Demonstrations: prompt and completion, or messages (see `read_preferences`)."""
    return collect(name, demonstration_from, unused=unread(DEMONSTRATION_COLUMNS), **options)


def read_unpaired(name: str | Path, **options: Any) -> Records[Unpaired]:
    """Labelled responses: prompt, completion and label (see `read_preferences`)."""
    return collect(name, unpaired_from, unused=unread(UNPAIRED_COLUMNS), **options)


def read_prompts(name: str | Path, **options: Any) -> Records[Prompt]:
    """Prompts to sample responses to; other columns are ignored (see `read_preferences`)."""
    return collect(name, prompt_from, unused=unread(PROMPT_COLUMNS), **options)


def write_preferences(
    path: str | Path,
    pairs: Iterable[Preference],
    format: Literal["explicit", "implicit", "hh"] = "explicit",
) -> Path:
    """Write pairs, so that `read_preferences` gives the same pairs back.

    Args:
        path: .jsonl, .jsonl.gz, .json, .json.gz or .parquet; written whole or not at all.
        format: see `formats`; "implicit" and "hh" cannot hold every pair.

    Raises: InvalidDataError, which names the record that the format cannot hold.
    """
    return _write(path, pairs, lambda pair: preference_row(pair, format), preference_from, format)


def write_demonstrations(
    path: str | Path,
    demonstrations: Iterable[Demonstration],
    format: Literal["prompt-completion", "messages"] = "prompt-completion",
) -> Path:
    """Write demonstrations, so that `read_demonstrations` gives the same back."""
    return _write(
        path,
        demonstrations,
        lambda shown: demonstration_row(shown, format),
        demonstration_from,
        format,
    )


def write_unpaired(path: str | Path, responses: Iterable[Unpaired]) -> Path:
    """Write labelled responses, so that `read_unpaired` gives the same back."""
    return _write(path, responses, unpaired_row, unpaired_from, "unpaired")


def _write(
    path: str | Path,
    records: Iterable[_T],
    to_row: Callable[[_T], dict[str, Any]],
    from_row: Callable[[Any], tuple[str, _T]],
    format: str,
) -> Path:
    rows = []
    for number, record in enumerate(records):
        try:
            row = to_row(record)
            same, reason = from_row(row)[1] == record, "it would be read back as something else"
        except (Rejected, TypeError, KeyError, AttributeError) as error:
            same, reason = False, str(error)
        if not same:
            raise InvalidDataError(
                f"Record {number} cannot be written in the format {format!r}: {reason}. Choose "
                "another format, or make its prompt a list of messages (formats.as_messages)."
            )
        rows.append(row)
    columns = dict.fromkeys(column for row in rows for column in row)
    return write_rows(path, [{column: row.get(column) for column in columns} for row in rows])
