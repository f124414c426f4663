"""What a limit on the length does to responses, before any training.

A response that is cut has no end: its end marker must not be learned where the text was broken
off, nor be dropped unseen. So a cut response is `ended=False`, a whole one has room for its end
marker, and a report counts both. Two responses that differ only after the limit become equal: a
pair that teaches nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from irlbook.data.records import Demonstration, Preference, Prompt, Unpaired
from irlbook.errors import InvalidHyperparameterError

__all__ = ["Fitted", "LengthReport", "fit_response", "group_report", "length_report"]

_Group = tuple[Sequence[Any], Sequence[Sequence[Any]]]  # a prompt's ids, and each response's


class Fitted(NamedTuple):
    """The tokens of a response that fit. The end marker is not among them: add it if `ended`."""

    ids: tuple[int, ...]
    ended: bool  # the response is whole, and there is room for the end marker


def fit_response(prompt_length: int, ids: Sequence[int], max_length: int) -> Fitted:
    """Cut a response, so that prompt, response and (if whole) end marker fit into max_length.

    Args:
        prompt_length: tokens of the prompt, markers of its template included.
        ids: tokens of the response, without end marker.
    """
    room = max(0, max_length - prompt_length)
    if len(ids) + 1 <= room:
        return Fitted(tuple(ids), True)
    return Fitted(tuple(ids[:room]), False)


@dataclass(frozen=True)
class LengthReport:
    """Which records a limit touches, by their numbers."""

    max_length: int
    records: int
    longest: int  # tokens of the longest prompt with its response and end marker
    no_room: list[int]  # the prompt alone fills the limit
    truncated: list[int]  # a response is cut
    made_identical: list[int]  # a pair's responses are cut to equals

    def keep(self) -> list[int]:
        """The records that lose nothing."""
        lost = {*self.no_room, *self.truncated}
        return [i for i in range(self.records) if i not in lost]

    def __str__(self) -> str:
        return (
            f"limit of {self.max_length} tokens: {self.records} records, the longest has "
            f"{self.longest}; {len(self.no_room)} prompts leave no room, {len(self.truncated)} "
            f"lose the end of a response, {len(self.made_identical)} pairs become identical"
        )


def length_report(
    records: Sequence[Preference | Demonstration | Unpaired],
    prompt_ids: Callable[[Prompt], Sequence[int]],
    response_ids: Callable[[str], Sequence[int]],
    max_length: int,
) -> LengthReport:
    """What a limit does to these records.

    Args:
        prompt_ids: tokens of a prompt, as the model will see it.
        response_ids: tokens of a response, without end marker; a response that ended has one more.
        max_length: most tokens of prompt, response and end marker together.

    Raises: InvalidHyperparameterError, when max_length is not positive.
    """
    end = [None]  # like no token: a response is cut to equals with its like only

    def group(record: Preference | Demonstration | Unpaired) -> _Group:
        if isinstance(record, Preference):
            answers = [[*response_ids(text), *end] for text in (record.chosen, record.rejected)]
        else:
            answers = [[*response_ids(record.response), *(end if record.ended else [])]]
        return prompt_ids(record.prompt), answers

    return group_report([group(record) for record in records], max_length)


def group_report(groups: Sequence[_Group], max_length: int) -> LengthReport:
    """What a limit does to prompts with their responses, end markers included, as token ids."""
    if max_length < 1:
        raise InvalidHyperparameterError(f"max_length is {max_length}. Give at least 1.")
    longest = 0
    no_room: list[int] = []
    truncated: list[int] = []
    made_identical: list[int] = []
    for number, (prompt, answers) in enumerate(groups):
        room = max_length - len(prompt)
        longest = max(longest, *(len(prompt) + len(answer) for answer in answers))
        if room <= 0:
            no_room.append(number)
        elif any(len(answer) > room for answer in answers):
            truncated.append(number)
            cut = [list(answer[:room]) for answer in answers]
            if len(cut) == 2 and cut[0] == cut[1]:
                made_identical.append(number)
    return LengthReport(max_length, len(groups), longest, no_room, truncated, made_identical)
