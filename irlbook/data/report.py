"""What a reader did: the records it kept, and a report that names every row it did not."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar, overload

from irlbook.data.files import MOST_BYTES, MOST_LINE_BYTES, read_rows
from irlbook.errors import EmptyDataError, MalformedRowsError

__all__ = [
    "ENOUGH",
    "Finding",
    "Kind",
    "MOST_APART",
    "MOST_NAMED",
    "ReadReport",
    "Records",
    "Rejected",
    "collect",
]

_T = TypeVar("_T")
Kind = Literal["malformed", "identical", "no shared prompt", "empty response"]

ENOUGH = 10  # malformed rows after which a strict reader stops
MOST_NAMED = 1000  # findings of a kind that a report names; it counts all
MOST_APART = 0.05  # share of pairs without a shared prompt above which a strict reader stops


class Rejected(Exception):
    """A row is not kept: of which kind it is, and why. Caught by `collect`."""

    def __init__(self, reason: str, kind: Kind = "malformed") -> None:
        super().__init__(reason)
        self.kind = kind


class Finding(NamedTuple):
    """One row that is worth a word."""

    kind: Kind
    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass
class ReadReport:
    """How many rows were read, which of them were left out, and why.

    rows = kept + malformed + identical + no_shared_prompt. Rows with an empty response are kept.
    """

    source: str
    rows: int = 0
    kept: int = 0
    formats: Counter[str] = field(default_factory=Counter)  # of the rows kept
    files: dict[str, str] = field(default_factory=dict)  # read, each with its first row's format
    ignored: Counter[str] = field(default_factory=Counter)  # columns that nothing was made of
    counts: Counter[Kind] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def malformed(self) -> int:
        """Rows that are not what they should be."""
        return self.counts["malformed"]

    @property
    def identical(self) -> int:
        """Pairs of equal responses: they say nothing, and are left out."""
        return self.counts["identical"]

    @property
    def no_shared_prompt(self) -> int:
        """Pairs whose texts differ before the response begins: left out."""
        return self.counts["no shared prompt"]

    @property
    def empty_responses(self) -> int:
        """Rows in which a response is empty: kept, since ending at once is a response too."""
        return self.counts["empty response"]

    def places(self, kind: Kind = "malformed") -> list[Finding]:
        """The rows of one kind by file and line (the first thousand)."""
        return [finding for finding in self.findings if finding.kind == kind]

    def add(self, finding: Finding) -> None:
        """Count a finding, and name it unless there are too many."""
        self.counts[finding.kind] += 1
        if self.counts[finding.kind] <= MOST_NAMED:
            self.findings.append(finding)

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.rows} rows, {self.kept} kept"]
        lines[0] += f" ({', '.join(self.formats)})" if self.formats else ""
        if len(self.files) > 1 or (self.files and self.source not in self.files):
            lines.append(f"  read from {', '.join(list(self.files)[:ENOUGH])}")
        if self.ignored:
            more = ", ..." if len(self.ignored) > ENOUGH else ""
            lines.append(f"  columns not used: {', '.join(list(self.ignored)[:ENOUGH])}{more}")
        for kind, count in self.counts.items():
            lines.append(f"  {count} {kind}:")
            lines += [f"    {finding}" for finding in self.places(kind)[:ENOUGH]]
            lines += [f"    and {count - ENOUGH} more"] if count > ENOUGH else []
        return "\n".join(lines)


class Records(Sequence[_T], Generic[_T]):
    """The records that were kept, as a sequence; `report` says what was not."""

    def __init__(self, records: list[_T], report: ReadReport, where: Sequence[str] = ()) -> None:
        """
        Args:
            where: file and line of each record, if they are known.
        """
        self._records, self.report, self.where = records, report, list(where)

    @overload
    def __getitem__(self, index: int) -> _T: ...
    @overload
    def __getitem__(self, index: slice) -> list[_T]: ...
    def __getitem__(self, index: int | slice) -> _T | list[_T]:
        return self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[_T]:
        return iter(self._records)

    def __repr__(self) -> str:  # never the rows: they may be long, private or offensive
        return f"<{len(self)} records of {self.report.source}>"


def collect(
    name: str | Path,
    parse: Callable[[Any], tuple[str, _T]],
    *,
    unused: Callable[[Any], list[str]] | None = None,
    strict: bool = True,
    split: str | None = None,
    usual_split: str = "train",
    most_bytes: int = MOST_BYTES,
    most_line_bytes: int = MOST_LINE_BYTES,
) -> Records[_T]:
    """Parse every row of a file, folder or hub data set.

    Args:
        name, split, usual_split, most_bytes, most_line_bytes: as `files.read_rows` takes them.
        parse: from a row as read from JSON to the name of its format and a record; raises
            `Rejected` for a row that is not kept.
        unused: the columns of a row that `parse` does not look at; the report names them once.
        strict: True raises when a row is malformed, after ten of them or at the end, and names
            them; and when several pairs, more than a twentieth of all, share no prompt. False
            leaves them out, and the report names them. Identical pairs, and few pairs without a
            shared prompt, are left out and reported either way.

    Raises:
        MalformedRowsError, EmptyDataError: they carry the report.
        DataNotFoundError, DataTooLargeError, InvalidDataError, MissingDependencyError.
    """
    records: list[_T] = []
    places: list[str] = []
    report = ReadReport(str(name))
    for row in read_rows(
        name,
        split=split,
        usual_split=usual_split,
        most_bytes=most_bytes,
        most_line_bytes=most_line_bytes,
    ):
        report.rows += 1
        report.files.setdefault(row.file, "")
        try:
            if row.reason:
                raise Rejected(row.reason)
            kind, record = parse(row.value)
            _check_alike(report, row.file, kind)
        except Rejected as rejected:
            report.add(Finding(rejected.kind, row.file, row.line, str(rejected)))
            if strict and report.malformed == ENOUGH:
                raise _malformed(report, "at least ") from None
            continue
        report.kept += 1
        report.formats[kind] += 1
        report.ignored.update(unused(row.value) if unused else ())
        place = f"{row.file}:{row.line}"
        places.append(place)
        if is_dataclass(record) and hasattr(record, "where"):
            record = replace(record, where=place)  # type: ignore[type-var]
        records.append(record)
        if "" in (getattr(record, key, None) for key in ("response", "chosen", "rejected")):
            report.add(Finding("empty response", row.file, row.line, "a response is empty"))
    if strict and report.malformed:
        raise _malformed(report)
    if strict and report.no_shared_prompt > max(1, MOST_APART * report.rows):
        raise _apart(report)
    if not records:
        raise EmptyDataError(
            f"There is nothing to learn from. {report}\nGive a file with rows that can be used.",
            report,
        )
    return Records(records, report, places)


def _check_alike(report: ReadReport, file: str, kind: str) -> None:
    """In one file, texts have their prompt in a column, or have it not."""
    first = report.files[file] = report.files[file] or kind
    if kind != first and "implicit prompt" in (kind, first) and "explicit" in kind + first:
        raise Rejected(f"read as {kind}, where rows before are {first}: a prompt is missing here")


def _apart(report: ReadReport) -> MalformedRowsError:
    places = report.places("no shared prompt")
    return MalformedRowsError(
        f"{report.no_shared_prompt} of {report.rows} pairs of {report.source} "
        f"({report.no_shared_prompt / report.rows:.0%}; first {places[0].file}:{places[0].line}) "
        "have no prompt and share none: what the others share by chance would be read as their "
        "prompt. Name the column of the prompt `prompt`; or read with strict=False "
        "(--skip-malformed) to leave these pairs out.",
        report,
    )


def _malformed(report: ReadReport, at_least: str = "") -> MalformedRowsError:
    places = "\n".join(f"  {finding}" for finding in report.places())
    return MalformedRowsError(
        f"{at_least}{report.malformed} of the first {report.rows} rows of {report.source} are "
        f"malformed:\n{places}\nMend them, or leave them out with strict=False "
        "(--skip-malformed).",
        report,
    )
