"""From records to token ids. What a tokenizer refuses is named by the file and line it came from.

A response that was cut off (`ended` is False) gets no end token: it must not teach one. Nothing is
ever cut here: records that do not fit are left out whole, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from irlbook.data.records import Demonstration, Preference, Prompt, Unpaired
from irlbook.data.truncation import LengthReport, group_report
from irlbook.errors import ContextLengthError, EmptyDataError, InvalidDataError, MalformedRowsError
from irlbook.lm.tokenization import encode_prompt, encode_response, end_id
from irlbook.lm.trees import Group

__all__ = [
    "Encoded",
    "NAMED",
    "Record",
    "comes_back",
    "context_length",
    "encode",
    "encode_prompts",
    "length_limit",
    "refusals",
]

Record = Preference | Demonstration | Unpaired
NAMED = 10  # places that a report names; it counts all
_T = TypeVar("_T")
_V = TypeVar("_V")


@dataclass(frozen=True)
class Encoded:
    """Records as token ids: the groups, which records they are, and what was left out."""

    groups: list[Group]
    kept: list[int]
    report: LengthReport
    where: list[str]  # of all records: file and line, or their number
    refused: list[str]  # records that could not be encoded: where, and why

    def lines(self) -> list[str]:
        """The report, and which records were left out."""
        found = [str(self.report)]
        left = sorted({*self.report.no_room, *self.report.truncated})
        if left:
            found.append(f"{len(left)} records left out: {_list([self.where[i] for i in left])}")
        return found + refusals(self.refused)

    def place(self, example: int) -> str:
        """Where a group came from."""
        return self.where[self.kept[example]]


def encode(
    records: Sequence[Record], tokenizer: Any, max_length: int, *, strict: bool = True
) -> Encoded:
    """Token ids of the records that fit; the others are left out whole, and counted.

    Args:
        strict: True raises where a record cannot be encoded (its roles are not the chat
            template's, say), and names it; False leaves it out.

    Raises:
        MalformedRowsError: a record cannot be encoded.
        EmptyDataError: no record is left.
    """
    where = [record.where or f"record {i} (counted from 0)" for i, record in enumerate(records)]

    def one(record: Record) -> Group:
        if isinstance(record, Preference):
            texts, ended = [record.chosen, record.rejected], True
        else:
            texts, ended = [record.response], record.ended
        answers = [encode_response(tokenizer, text, ended=ended) for text in texts]
        if not all(answers):
            raise InvalidDataError("the response was cut off before its first token")
        return encode_prompt(tokenizer, record.prompt), answers

    groups, at, refused = _each(one, records, where, strict)
    report = group_report(groups, max_length)
    fitting = report.keep()
    report = replace(
        report,
        records=len(records),
        no_room=[at[i] for i in report.no_room],
        truncated=[at[i] for i in report.truncated],
        made_identical=[at[i] for i in report.made_identical],
    )
    coded = Encoded([groups[i] for i in fitting], [at[i] for i in fitting], report, where, refused)
    if not fitting:
        raise EmptyDataError(
            f"No record fits. {'; '.join(coded.lines())}. Raise the limit, or shorten the records."
        )
    return coded


def encode_prompts(
    prompts: Sequence[Prompt],
    tokenizer: Any,
    max_new_tokens: int,
    context: int,
    *,
    strict: bool = True,
) -> tuple[list[int], list[list[int]], list[str]]:
    """Token ids of the prompts that leave room for a response.

    Args:
        prompts: those of `read_prompts` are named by file and line, others by their number.
        context: tokens that the model can read.
        strict: True raises where a prompt cannot be used; False leaves it out.

    Returns:
        Which prompts are kept, their ids, and lines of report.

    Raises:
        MalformedRowsError: a prompt cannot be encoded; ContextLengthError: one leaves no room.
        EmptyDataError: no prompt is left.
    """
    where = getattr(prompts, "where", None) or [f"prompt {i}" for i in range(len(prompts))]
    ids, kept, refused = _each(lambda p: encode_prompt(tokenizer, p), prompts, where, strict)
    long = [i for i, tokens in enumerate(ids) if len(tokens) + max_new_tokens > context]
    named = [f"{where[kept[i]]} ({len(ids[i])} tokens)" for i in long]
    told = (
        f"{len(long)} of {len(prompts)} prompts leave no room for {max_new_tokens} new tokens in a "
        f"context of {context}: {_list(named)}"
    )
    if long and strict:
        raise ContextLengthError(
            f"{told}. Lower max_new_tokens, shorten these prompts, or leave them out with "
            "strict=False (--skip-malformed)."
        )
    lines = refusals(refused) + ([f"left out: {told}"] if long else [])
    room = [i for i in range(len(ids)) if i not in set(long)]
    if not room:
        raise EmptyDataError(f"there is no prompt to answer. {'; '.join(lines)}".rstrip())
    return [kept[i] for i in room], [ids[i] for i in room], lines


def refusals(refused: Sequence[str]) -> list[str]:
    """A line of report on what could not be encoded, if there is anything."""
    return [f"{len(refused)} left out, not to be encoded: {_list(refused)}"] if refused else []


def comes_back(tokenizer: Any, text: str, ids: Sequence[int], ended: bool) -> bool:
    """Does a sample's text, written and read again, give the tokens that were drawn?

    Not where the model spelled it in other tokens than the tokenizer would, was cut within a
    letter, or ended with another token than the one that ends a response.
    """
    if ended and ids and ids[-1] != end_id(tokenizer):
        return False
    return list(ids) == encode_response(tokenizer, text, ended=ended)


def _each(
    encoder: Callable[[_T], _V], given: Iterable[_T], where: Sequence[str], strict: bool
) -> tuple[list[_V], list[int], list[str]]:
    """What `encoder` makes of each, which these are, and where and why the others were refused."""
    made: list[_V] = []
    at: list[int] = []
    refused: list[str] = []
    for i, one in enumerate(given):
        try:
            made.append(encoder(one))
            at.append(i)
        except Exception as error:  # a tokenizer or template may raise anything about a text
            reason = f"{where[i]}: {' '.join(str(error).split())}"
            if strict:
                raise MalformedRowsError(
                    f"{reason} Mend the row, or leave it out with strict=False (--skip-malformed)."
                ) from error
            refused.append(reason)
    return made, at, refused


def _list(named: Sequence[str]) -> str:
    return ", ".join(named[:NAMED]) + (" ..." if len(named) > NAMED else "")


def context_length(model: Any) -> int:
    """Tokens that a model can read; very many if it does not say."""
    return getattr(model.config, "max_position_embeddings", None) or 1 << 20


def length_limit(max_length: int | None, model: Any) -> int:
    """The longest record that is used: what was asked for, at most what the model can read."""
    return min(max_length or context_length(model), context_length(model))
