"""Finding data, and reading rows from files that nobody vouches for.

Rows come from .jsonl (also gzipped), .json (an array of objects), .parquet, a folder of these, or
the Hugging Face hub. The kind of a file is told from its content, not from its name. A row that
cannot be read is yielded with the reason; a file that cannot be read raises a named error.
"""

import gzip
import io
import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from packaging.version import Version

from irlbook.errors import (
    DataNotFoundError,
    DataTooLargeError,
    InvalidDataError,
    MissingDependencyError,
)

__all__ = [
    "BOM",
    "FOLDER",
    "FOREIGN",
    "MOST_BYTES",
    "MOST_LINE_BYTES",
    "Row",
    "SPLITS",
    "SUFFIXES",
    "atomic",
    "find_data",
    "is_hub_name",
    "loads",
    "read_rows",
    "umask",
    "write_rows",
]

FOLDER = "IRLBOOK_DATA"  # the environment variable that names the folder of data sets
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
MOST_BYTES = 4 * 1024**3  # of one file, after unpacking
MOST_LINE_BYTES = 16 * 1024**2
BOM = b"\xef\xbb\xbf"
SPLITS = {  # words of a file's name that say which split it is
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing"},
    "eval": {"eval", "evaluation"},
}
FOREIGN = {  # how files begin that are often taken for data
    b"PK\x03\x04": "a zip archive (or a spreadsheet); unpack it",
    b"BZh": "packed with bzip2; unpack it, or pack it with gzip",
    b"\xfd7zXZ": "packed with xz; unpack it, or pack it with gzip",
    b"\x28\xb5\x2f\xfd": "packed with zstandard; unpack it, or pack it with gzip",
    b"ARROW1": "an Arrow file; save it as parquet",
    b"version https://git-lfs": "a pointer of Git LFS and not the data; fetch them (git lfs pull)",
    b"<": "a page of HTML or XML and not the data; fetch the file itself",
}

_HUB_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def is_hub_name(name: str) -> bool:
    """Whether this could be "owner/name" of the Hugging Face hub."""
    return bool(_HUB_NAME.fullmatch(name)) and not name.endswith(SUFFIXES)


class Row(NamedTuple):
    """One row as it was read: `value`, or, where it cannot be read, None and the `reason`."""

    file: str
    line: int  # counted from 1; in parquet files and from the hub, the number of the row
    value: Any
    reason: str = ""


def find_data(name: str | Path) -> Path:
    """The file or folder that a name means.

    Args:
        name: a path; or a name under the folder in the environment variable IRLBOOK_DATA
            ("gsm8k", "gsm8k/test.jsonl").

    Raises: DataNotFoundError, which tells both ways.
    """
    path = Path(name)
    folder = os.environ.get(FOLDER)
    with suppress(OSError, ValueError, RuntimeError):  # not a possible path: too long, say
        if str(name) and path.expanduser().exists():
            return path.expanduser()
        if str(name) and folder and (Path(folder) / path).exists():
            return Path(folder) / path
    looked = f"and the environment variable {FOLDER} is not set"
    if folder:
        looked = f"nor is it in the folder that {FOLDER} names ({folder})"
    raise DataNotFoundError(
        f"No data under {str(name)[:200]!r}: there is no such file or folder, {looked}. Give the "
        f"path of a file or folder; or set {FOLDER} to a folder that holds it."
    )


def read_rows(
    name: str | Path,
    *,
    split: str | None = None,
    usual_split: str = "train",
    most_bytes: int = MOST_BYTES,
    most_line_bytes: int = MOST_LINE_BYTES,
) -> Iterator[Row]:
    """The rows of a file, of the data files in a folder, or of a data set of the hub.

    Args:
        name: what `find_data` takes; or "owner/name" of the Hugging Face hub (needs the package
            `datasets`, and a network unless it lies in its cache).
        split: which part ("train", "test" ...). In a folder, the files whose names say so
            ("test.jsonl", "data.test-00000.parquet").
        usual_split: which part where `split` is None and there are several. A file or folder that
            names no split is read whole, and is what "train" means, too.
        most_bytes: of a file after unpacking; a larger one raises DataTooLargeError.
        most_line_bytes: of a line; a longer one is a row that cannot be read.

    Raises: DataNotFoundError, DataTooLargeError, InvalidDataError, MissingDependencyError.
    """
    try:
        path = find_data(name)
    except DataNotFoundError:
        if isinstance(name, str) and is_hub_name(name):
            yield from _read_hub(name, split or usual_split)
            return
        raise
    for file in _files_of(path, split, usual_split):
        yield from _read_file(file, most_bytes, most_line_bytes)


def _files_of(path: Path, split: str | None, usual: str) -> list[Path]:
    """The files that a path and a split mean."""
    if not path.is_dir():
        if split is not None and not (_is_of(path, split) or _unnamed(split, _split_of(path))):
            raise DataNotFoundError(
                f"{path} is one file, and its name does not say that it is the split {split!r}. "
                "Leave the split out, or give the file that holds it."
            )
        return [path]
    files = sorted(
        file
        for file in path.iterdir()
        if file.name.endswith(SUFFIXES) and not file.name.startswith(".")
    )
    if not files:
        raise DataNotFoundError(
            f"The folder {path} holds no data file. Give a folder with files that end in "
            f"{', '.join(SUFFIXES)}."
        )
    splits = {file: _split_of(file) for file in files}
    named = sorted({one for one in splits.values() if one})
    if not named and (split is None or _unnamed(split, None)):
        chosen = files
    elif split is None and usual not in named and (len(named) > 1 or None in splits.values()):
        raise DataNotFoundError(
            f"The folder {path} can be read in several ways: it holds {_names(files)}. Say which "
            f"split ({', '.join(named)}), or give one file."
        )
    else:
        wanted = split or (usual if usual in named else named[0])
        chosen = [file for file in files if _is_of(file, wanted)]
        if not chosen:
            raise DataNotFoundError(
                f"The folder {path} has no split {wanted!r}: "
                + (f"there are {', '.join(named)}" if named else "no file's name tells a split")
                + f" ({_names(files)}). Give one that is there, or one file."
            )
    by_stem: dict[str, Path] = {}
    for file in chosen:
        twin = by_stem.setdefault(_stem(file), file)
        if twin != file:
            raise DataNotFoundError(
                f"{twin.name} and {file.name} in {path} seem to hold the same rows. Give one file, "
                "or rename one of them."
            )
    return chosen


def _stem(file: Path) -> str:
    suffix = next((one for one in sorted(SUFFIXES, key=len, reverse=True)
                   if file.name.endswith(one)), "")  # fmt: skip
    return file.name.removesuffix(suffix)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def _split_of(file: Path) -> str | None:
    """The split that a file's name says, if it says one."""
    found = [split for split, words in SPLITS.items() if words & _words(_stem(file))]
    if len(found) > 1:
        raise DataNotFoundError(
            f"The name of {file} says {' and '.join(found)}. Rename it, or give the file itself."
        )
    return found[0] if found else None


def _is_of(file: Path, split: str) -> bool:
    """Does a file's name say this split, in one of its words or as a whole?"""
    own = next((words for words in SPLITS.values() if split.lower() in words), {split.lower()})
    return bool(own & _words(_stem(file))) or _stem(file) == split


def _unnamed(split: str, named: str | None) -> bool:
    """Files whose names say no split are for training, as elsewhere."""
    return named is None and split.lower() in SPLITS["train"]


def _names(files: list[Path]) -> str:
    return ", ".join(file.name for file in files[:8]) + (", ..." if len(files) > 8 else "")


def _read_file(path: Path, most_bytes: int, most_line_bytes: int) -> Iterator[Row]:
    try:
        with path.open("rb") as raw:
            start = raw.read(4)
            raw.seek(0)
            if start == b"PAR1":
                yield from _read_parquet(path, most_bytes)
                return
            file = gzip.GzipFile(fileobj=raw) if start.startswith(b"\x1f\x8b") else raw
            begins = file.peek(1024)
            if begins.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise InvalidDataError(f"{path} is UTF-16. Save it as UTF-8.")
            _check_begin(path, begins.removeprefix(BOM).lstrip())
            stream = _Limited(file, path, most_bytes)
            if begins.removeprefix(BOM).lstrip().startswith(b"["):
                yield from _read_array(stream.rest().removeprefix(BOM), path)
            else:
                yield from _read_lines(stream, path, most_line_bytes)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidDataError(
            f"{path} is gzipped, but cut off or corrupt ({error}). Fetch it again."
        ) from error
    except OSError as error:
        raise InvalidDataError(
            f"{path} cannot be read ({error.strerror or error}). Check that it is a file, and that "
            "you may read it."
        ) from error


def _check_begin(path: Path, begins: bytes) -> None:
    """Refuse a file of another kind by name, instead of each of its lines."""
    for start, what in FOREIGN.items():
        if begins.startswith(start):
            raise InvalidDataError(f"{path} is {what}.")
    if path.name.removesuffix(".gz").endswith((".csv", ".tsv")) and begins[:1] not in b"{[":
        raise InvalidDataError(
            f"{path} is a table of text. Save it as JSON lines or as parquet (the page 'Your own "
            "world, data and reward' shows how)."
        )
    if begins.split(b"\n", 1)[0].strip() == b"{":
        raise InvalidDataError(
            f"{path} holds an object over several lines. Save JSON lines, one object a line, or an "
            "array of objects."
        )


class _Limited:
    """Lines of a binary stream, up to a number of bytes in all."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, path: Path, most: int) -> None:
        self.stream, self.path, self.most, self.seen = stream, path, most, 0

    def readline(self, most: int) -> bytes:
        line = self.stream.readline(most)
        self.seen += len(line)
        if self.seen > self.most:
            raise _too_large(self.path, self.most)
        return line

    def lines(self, most: int) -> Iterator[tuple[int, bytes | None]]:
        """Each line with its number; None for one that is longer than `most` bytes."""
        number = 0
        while line := self.readline(most + 2):
            number += 1
            too_long = len(line.rstrip(b"\r\n")) > most
            while not line.endswith(b"\n") and (rest := self.readline(1 << 20)):
                too_long, line = True, rest
            yield number, None if too_long else line

    def rest(self) -> bytes:
        """All of it."""
        return b"".join(iter(lambda: self.readline(1 << 20), b""))


def _too_large(path: Path, most: int) -> DataTooLargeError:
    return DataTooLargeError(
        f"{path} holds more than {most:,} bytes (unpacked). Split it into files, or raise "
        "most_bytes if you trust it."
    )


def _read_lines(stream: _Limited, path: Path, most_line_bytes: int) -> Iterator[Row]:
    """Rows of JSON lines. Empty lines are no rows, but count as lines."""
    for number, line in stream.lines(most_line_bytes):
        if line is None:
            reason = f"the line is longer than {most_line_bytes:,} bytes"
            yield Row(str(path), number, None, reason)
            continue
        line = line.removeprefix(BOM) if number == 1 else line
        if not line.strip():
            continue
        try:
            yield Row(str(path), number, loads(line.decode("utf-8")))
        except (ValueError, RecursionError) as error:
            yield Row(str(path), number, None, _json_reason(error))


def _read_array(content: bytes, path: Path) -> Iterator[Row]:
    """Rows of a JSON array, each with the line on which it begins.

    What breaks the array itself ends the reading with an error; the rows before are yielded.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidDataError(f"{path} is not UTF-8 ({error.reason}). Save it as UTF-8.") from None
    at = _after_space(text, text.index("[") + 1)
    line, counted = 1, 0
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = _DECODER.raw_decode(text, at)
            at = _after_space(text, at)
            if text[at : at + 1] not in (",", "]"):
                raise ValueError("a comma or a closing bracket is missing after this row")
        except (ValueError, RecursionError) as error:
            raise InvalidDataError(
                f"{path}, line {line}: {_json_reason(error)}. Mend the file, or save it as JSON "
                "lines, where one bad row does not spoil the others."
            ) from None
        yield Row(str(path), line, value)
        if text[at] == ",":
            at = _after_space(text, at + 1)
    if text[at + 1 :].strip():
        raise InvalidDataError(f"{path} goes on after the array. Save one array, or JSON lines.")


def _after_space(text: str, at: int) -> int:
    while text[at : at + 1].isspace():
        at += 1
    return at


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands twice")
    return row


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_distinct)


def loads(text: str) -> Any:
    """JSON, read strictly: no NaN or Infinity, and no key twice in an object.

    Raises: ValueError, RecursionError.
    """
    return _DECODER.decode(text)


def _json_reason(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return f"not UTF-8 (byte {error.start}: {error.reason})"
        case json.JSONDecodeError():
            return f"not JSON (column {error.colno}: {error.msg})"
        case RecursionError():
            return "nested too deeply"
        case _:
            return f"not JSON that we accept ({str(error)[:120]})"


def _parquet() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet files need the package pyarrow. Install it (pip install pyarrow), or use "
            ".jsonl."
        ) from error
    return pyarrow, parquet


def _read_parquet(path: Path, most_bytes: int) -> Iterator[Row]:
    pyarrow, parquet = _parquet()
    try:
        number = 0
        with parquet.ParquetFile(path) as file:
            groups = range(file.metadata.num_row_groups)
            if sum(file.metadata.row_group(i).total_byte_size for i in groups) > most_bytes:
                raise _too_large(path, most_bytes)
            for batch in file.iter_batches(batch_size=1024):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(str(path), number, value)
    except DataTooLargeError:
        raise
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:  # dates out of range ...
        raise InvalidDataError(
            f"{path} is no sound parquet file ({str(error)[:200]}). Fetch it again."
        ) from error


def _read_hub(name: str, split: str) -> Iterator[Row]:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(
            f"There is no file or folder {name!r}, here or under {FOLDER}. To fetch a data set of "
            "that name from the Hugging Face hub, install the package datasets (pip install "
            "datasets)."
        ) from error
    if Version(datasets.__version__) < Version("2.20"):
        raise MissingDependencyError(
            f"The package datasets is version {datasets.__version__}, which runs code that a data "
            "set brings along. Install a newer one (pip install 'datasets>=2.20')."
        )
    try:
        rows = datasets.load_dataset(name, split=split)
    except Exception as error:  # what it raises without a network changes from version to version
        raise DataNotFoundError(
            f"There is no file or folder {name!r}, here or under {FOLDER}, and the Hugging Face "
            f"hub gave no data set of that name with a split {split!r}: {type(error).__name__}: "
            f"{str(error)[:300]}. Check the name and the split; without a network, give a path."
        ) from error
    for number, value in enumerate(rows, start=1):
        yield Row(f"{name}[{split}]", number, value)


# --- writing --------------------------------------------------------------------------------------


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` when all of it is written, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def umask() -> int:
    """What this process keeps from others in the files that it creates."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_rows(path: str | Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows to .jsonl, .jsonl.gz, .json, .json.gz or .parquet, told by the name, atomically.

    The same rows give the same bytes.

    Raises: InvalidDataError (another suffix), MissingDependencyError, OSError (a full disk; what
    was at `path` before is still there).
    """
    path = Path(path)
    if not path.name.endswith(SUFFIXES):
        raise InvalidDataError(
            f"{path.name!r} does not tell how to write it. Let it end in {', '.join(SUFFIXES)}."
        )
    if path.name.endswith(".parquet"):
        pyarrow, parquet = _parquet()
        buffer = io.BytesIO()
        try:
            parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
        except pyarrow.ArrowException as error:
            raise InvalidDataError(
                f"These rows do not fit into columns of one type ({str(error)[:200]}). Write texts "
                "and conversations to separate files, or choose .jsonl."
            ) from error
        content = buffer.getvalue()
    elif path.name.removesuffix(".gz").endswith(".json"):
        content = (json.dumps(rows, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()
    else:
        lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        content = "".join(lines).encode()
    if path.name.endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    with atomic(path) as file:
        file.write(content)
    return path
