"""Rows from files that nobody vouches for: each fault is named by file and line, or stops."""

import gzip
import json
import os
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irlbook import data, errors
from irlbook.data import files, read_preferences
from irlbook.data.report import ENOUGH

PAIR = {"prompt": "p", "chosen": "c", "rejected": "r"}
LINE = json.dumps(PAIR).encode()


def rows(path, **options):
    return [(row.line, row.value, row.reason) for row in files.read_rows(path, **options)]


def write(path, content):
    path.write_bytes(content)
    return path


# --- finding --------------------------------------------------------------------------------------


def test_data_are_found_by_path_or_under_the_folder(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    file = write(tmp_path / "set" / "a.jsonl", LINE)
    monkeypatch.delenv(files.FOLDER, raising=False)
    assert data.find_data(file) == data.find_data(str(file)) == file
    with pytest.raises(errors.DataNotFoundError, match=r"IRLBOOK_DATA is not set.*Give the path"):
        data.find_data("set")
    monkeypatch.setenv(files.FOLDER, str(tmp_path))
    assert data.find_data("set") == tmp_path / "set"
    assert data.find_data("set/a.jsonl") == file
    for absent in (
        "no_set",
        "",
        tmp_path / "none",
        "x" * 10_000,
        "a\x00b",
        "~nobody-of-that-name/x",
    ):
        with pytest.raises(FileNotFoundError, match=r"nor is it in the folder that IRLBOOK_DATA"):
            data.find_data(absent)


def test_a_folder_is_all_its_data_files(tmp_path):
    write(tmp_path / "b.jsonl", LINE)
    write(tmp_path / "a.jsonl.gz", gzip.compress(LINE))
    write(tmp_path / "README.md", b"# no data")
    assert [os.path.basename(row.file) for row in files.read_rows(tmp_path)] == [
        "a.jsonl.gz",
        "b.jsonl",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.DataNotFoundError, match="holds no data file"):
        rows(tmp_path / "empty")


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        LINE + b"\n" + LINE,
        LINE + b"\r\n" + LINE + b"\r\n",
        b"\xef\xbb\xbf" + LINE + b"\n" + LINE + b"\n",
        gzip.compress(LINE + b"\n" + LINE, mtime=0),
        json.dumps([PAIR, PAIR]).encode(),
        b"\xef\xbb\xbf\r\n [" + LINE + b",\r\n" + LINE + b"]\n",
        gzip.compress(json.dumps([PAIR, PAIR], indent=2).encode(), mtime=0),
    ],
)
def test_the_kind_of_file_is_told_from_its_content(tmp_path, content):
    pairs = read_preferences(write(tmp_path / "any.name", content))
    assert list(pairs) == [data.Preference("p", "c", "r")] * 2
    assert pairs.report.rows == pairs.report.kept == 2


def test_lines_and_array_elements_are_numbered_as_in_an_editor(tmp_path):
    lines = write(tmp_path / "a.jsonl", b"\n" + LINE + b"\n\n" + LINE)
    assert [line for line, _, _ in rows(lines)] == [2, 4]
    array = write(tmp_path / "a.json", b"\n[\n1,\n\n2, 3\n]")
    assert rows(array) == [(3, 1, ""), (5, 2, ""), (5, 3, "")]
    assert rows(write(tmp_path / "b.json", b"[]")) == []


BAD_LINES = [
    (b'{"prompt": "p"', "not JSON"),
    (b"{'prompt': 1}", "not JSON"),
    (b'{"a": NaN}', "NaN is no JSON number"),
    (b'{"a": -Infinity}', "-Infinity is no JSON number"),
    (b'{"a": 1, "a": 2}', "'a' stands twice"),
    (b'{"a": ' + b"9" * 5000 + b"}", "not JSON that we accept"),
    (b'{"a": "\xff"}', "not UTF-8"),
    (b'{"a":' * 100_000, "nested too deeply"),
    (b'{"a": "' + b"x" * 3_000_000 + b'"}', "longer than 1,000,000 bytes"),
    (b"null", "missing"),
    (b"3", "a number"),
    (b'"text"', "a text"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_LINES)
def test_a_bad_line_is_named_and_the_others_are_read(tmp_path, bad, reason):
    path = write(tmp_path / "a.jsonl", LINE + b"\n" + bad + b"\n" + LINE)
    with pytest.raises(errors.MalformedRowsError, match="strict=False") as caught:
        read_preferences(path, most_line_bytes=10**6)
    assert f"{path}:2: " in str(caught.value) and reason in str(caught.value)
    assert len(str(caught.value)) < 2000
    pairs = read_preferences(path, most_line_bytes=10**6, strict=False)
    assert len(pairs) == 2 and pairs.report.malformed == 1
    assert reason in pairs.report.places()[0].reason


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (b"", errors.EmptyDataError, "0 rows"),
        (b"\xef\xbb\xbf\n \n", errors.EmptyDataError, "nothing to learn from"),
        (b"[]", errors.EmptyDataError, "0 rows"),
        (json.dumps(PAIR).encode("utf-16"), errors.InvalidDataError, "UTF-16"),
        (gzip.compress(LINE, mtime=0)[:-12], errors.InvalidDataError, "gzipped, but cut off"),
        (b"\x1f\x8b" + b"junk" * 10, errors.InvalidDataError, "gzipped, but cut off or corrupt"),
        (b"PAR1 and junk", errors.InvalidDataError, "no sound parquet"),
        (b'[{"a": 1}, {"a": ]', errors.InvalidDataError, "line 1: not JSON"),
        (b"[\n1,\n2 3]", errors.InvalidDataError, "line 3: .*comma"),
        (b"[1, 2", errors.InvalidDataError, "comma or a closing bracket"),
        (b"[1] [2]", errors.InvalidDataError, "goes on after the array"),
        (b'["\xff"]', errors.InvalidDataError, "not UTF-8"),
        (b"[" * 200_000, errors.InvalidDataError, "nested too deeply"),
        (b"[NaN]", errors.InvalidDataError, "NaN"),
    ],
)
def test_a_file_that_cannot_be_read_has_a_named_error(tmp_path, content, error, match):
    if b"PAR1" in content:
        pytest.importorskip("pyarrow")
    path = write(tmp_path / "a.jsonl", content)
    with pytest.raises(error, match=match):
        read_preferences(path, strict=False)


def test_a_gzip_bomb_stops_at_the_limit(tmp_path):
    bomb = write(tmp_path / "a.jsonl.gz", gzip.compress(b"0" * 30_000_000))
    with pytest.raises(errors.DataTooLargeError, match="more than 1,000,000 bytes"):
        rows(bomb, most_bytes=10**6)
    many = write(tmp_path / "b.jsonl.gz", gzip.compress((LINE + b"\n") * 50_000))
    with pytest.raises(errors.DataTooLargeError):
        rows(many, most_bytes=10**6)


def test_an_array_may_be_one_long_line(tmp_path):
    path = write(tmp_path / "a.json", json.dumps([PAIR] * 500).encode())
    assert len(read_preferences(path, most_line_bytes=100)) == 500
    with pytest.raises(errors.DataTooLargeError):
        read_preferences(path, most_bytes=1000)


def test_a_line_of_just_the_limit_is_read(tmp_path):
    path = write(tmp_path / "a.jsonl", LINE + b"\r\n" + LINE)
    assert len(read_preferences(path, most_line_bytes=len(LINE))) == 2
    with pytest.raises(errors.MalformedRowsError, match="2 of the first 2"):
        read_preferences(path, most_line_bytes=len(LINE) - 1)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", LINE)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(errors.InvalidDataError, match="Permission denied"):
        rows(path)


@given(st.binary(max_size=300))
def test_any_bytes_give_rows_or_a_named_error(tmp_path_factory, content):
    path = write(tmp_path_factory.mktemp("any") / "a.jsonl", content)
    try:
        pairs = read_preferences(path, strict=False)
    except (errors.InvalidDataError, errors.MissingDependencyError):  # "PAR1" asks for pyarrow
        return
    assert len(pairs) == pairs.report.kept > 0


# --- strictness and the report --------------------------------------------------------------------


def test_strict_stops_after_ten_and_names_them(tmp_path):
    path = write(tmp_path / "a.jsonl", LINE + b"\n" + b"{}\n" * 50)
    with pytest.raises(
        errors.MalformedRowsError, match="at least 10 of the first 11 rows"
    ) as caught:
        read_preferences(path)
    assert str(caught.value).count("without chosen, rejected") == ENOUGH
    assert caught.value.report.malformed == ENOUGH


def test_the_report_counts_all_and_names_a_thousand(tmp_path):
    same = json.dumps(PAIR | {"chosen": "r"}).encode()
    apart = json.dumps({"chosen": "a", "rejected": "b"}).encode()
    empty = json.dumps(PAIR | {"chosen": ""}).encode()
    path = write(tmp_path / "a.jsonl", b"\n".join([LINE, same, apart, empty, *[b"{}"] * 1200]))
    pairs = read_preferences(path, strict=False)
    report = pairs.report
    assert (report.rows, report.kept, report.malformed) == (1204, 2, 1200)
    assert (report.identical, report.no_shared_prompt, report.empty_responses) == (1, 1, 1)
    assert (
        report.rows == report.kept + report.malformed + report.identical + report.no_shared_prompt
    )
    assert len(report.places()) == 1000
    assert [f.line for kind in ("identical", "empty response") for f in report.places(kind)] == [
        2,
        4,
    ]
    text = str(report)
    assert "1204 rows, 2 kept" in text and f"{path}:2: chosen and rejected are equal" in text
    assert "and 1190 more" in text and len(text.splitlines()) < 25
    assert pairs[0] == pairs[:1][0] and len(pairs[:9]) == 2 and "2 records" in repr(pairs)


def test_no_reason_quotes_the_row(tmp_path):
    secret = "unspeakable"
    bad = [
        {"prompt": secret, "chosen": secret},
        {"prompt": [secret], "chosen": secret, "rejected": "b"},
        {"chosen": [{"role": secret, "content": secret}], "rejected": [secret]},
        {"chosen": secret, "rejected": "b"},
        [secret],
        secret,
    ]
    lines = [json.dumps(row).encode() for row in bad] + [b'{"a": "unspeakable" b}']
    path = write(tmp_path / "a.jsonl", b"{}\n" + b"\n".join(lines))
    with pytest.raises(errors.MalformedRowsError) as caught:
        read_preferences(path)
    assert secret not in str(caught.value)


# --- parquet and the hub --------------------------------------------------------------------------


def test_parquet_has_a_limit_too(tmp_path):
    pytest.importorskip("pyarrow")
    path = files.write_rows(
        tmp_path / "a.parquet", [PAIR | {"prompt": "p" * i} for i in range(999)]
    )
    assert len(rows(path)) == 999
    with pytest.raises(errors.DataTooLargeError):
        rows(path, most_bytes=1000)


def test_parquet_without_pyarrow_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = write(tmp_path / "a.parquet", b"PAR1....PAR1")
    for use in (lambda: rows(path), lambda: files.write_rows(path, [PAIR])):
        with pytest.raises(errors.MissingDependencyError, match="pip install pyarrow"):
            use()
    assert path.read_bytes() == b"PAR1....PAR1"


def test_a_hub_name_without_the_package_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(errors.MissingDependencyError, match="pip install datasets"):
        read_preferences("someone/pairs")
    with pytest.raises(errors.DataNotFoundError, match="IRLBOOK_DATA"):
        read_preferences("someone/pairs.jsonl")


def test_a_hub_name_is_read_through_the_package(monkeypatch):
    def load_dataset(name, split):
        if name != "someone/pairs":
            raise ConnectionError("no network")
        return [PAIR, PAIR | {"chosen": None}]

    hub = types.SimpleNamespace(load_dataset=load_dataset, __version__="4.1.0")
    monkeypatch.setitem(sys.modules, "datasets", hub)
    pairs = read_preferences("someone/pairs", split="test", strict=False)
    assert len(pairs) == 1
    assert str(pairs.report.places()[0]).startswith("someone/pairs[test]:2: without chosen")
    with pytest.raises(
        errors.DataNotFoundError, match="no network.*without a network, give a path"
    ):
        read_preferences("someone/else")
    hub.__version__ = "2.14.6"
    with pytest.raises(errors.MissingDependencyError, match="runs code that a data set brings"):
        read_preferences("someone/pairs")


# --- writing --------------------------------------------------------------------------------------


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", b"before")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_rows(path, [PAIR])
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_the_same_rows_give_the_same_bytes_readable_by_others(tmp_path):
    first = files.write_rows(tmp_path / "new" / "a.jsonl.gz", [PAIR])
    second = files.write_rows(tmp_path / "b.jsonl.gz", [PAIR])
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_mode & 0o444 == 0o444 & ~files.umask()
    with pytest.raises(errors.InvalidDataError, match="end in .jsonl"):
        files.write_rows(tmp_path / "a.csv", [PAIR])
    with pytest.raises(ValueError, match="NaN|nan|not JSON compliant"):
        files.write_rows(tmp_path / "c.jsonl", [{"a": float("nan")}])
    assert not (tmp_path / "c.jsonl").exists()


def test_parquet_refuses_mixed_columns(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(errors.InvalidDataError, match="choose .jsonl"):
        files.write_rows(tmp_path / "a.parquet", [{"a": "x"}, {"a": [{"b": "c"}]}])


# --- splits ---------------------------------------------------------------------------------------


def folder_of(tmp_path, *names):
    for name in names:
        write(tmp_path / name, json.dumps(PAIR | {"prompt": name}).encode())
    return tmp_path


def read_from(folder, **options):
    return [os.path.basename(row.file) for row in files.read_rows(folder, **options)]


def test_a_split_of_a_folder_is_the_files_that_name_it(tmp_path):
    folder = folder_of(tmp_path, "train.jsonl", "test.jsonl", "data.val-00000.json", ".x.jsonl")
    assert read_from(folder, split="test") == ["test.jsonl"]
    assert read_from(folder, split="validation") == ["data.val-00000.json"]
    assert read_from(folder, split="dev") == ["data.val-00000.json"]
    assert read_from(folder) == read_from(folder, split="train") == ["train.jsonl"]
    assert read_from(folder, usual_split="test") == ["test.jsonl"]
    with pytest.raises(errors.DataNotFoundError, match="no split 'gold'.*test, train, validation"):
        read_from(folder, split="gold")
    pairs = read_preferences(folder, split="test")
    assert pairs[0].prompt == "test.jsonl" and "read from" in str(pairs.report)
    assert pairs.where == [f"{folder / 'test.jsonl'}:1"]


def test_a_folder_without_splits_is_read_whole(tmp_path):
    folder = folder_of(tmp_path, "a.jsonl", "latest.jsonl")
    both = ["a.jsonl", "latest.jsonl"]
    assert read_from(folder) == both == read_from(folder, split="train")
    assert read_from(folder, usual_split="test") == both
    with pytest.raises(errors.DataNotFoundError, match="no file's name tells a split"):
        read_from(folder, split="test")


def test_the_only_split_of_a_folder_is_read(tmp_path):
    folder = folder_of(tmp_path, "harmless.test.jsonl", "helpful.test.jsonl")
    assert len(read_from(folder)) == 2
    assert read_from(folder, split="helpful") == ["helpful.test.jsonl"]
    with pytest.raises(errors.DataNotFoundError, match="no split 'train'"):
        read_from(folder, split="train")


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["train_test.jsonl", "a.jsonl"], "says train and test"),
        (["test.jsonl", "more.jsonl"], "in several ways.*more.jsonl, test.jsonl"),
        (["test.jsonl", "validation.jsonl"], "in several ways"),
        (["a.jsonl", "a.json"], "seem to hold the same rows"),
        (["train.jsonl", "train.jsonl.gz"], "seem to hold the same rows"),
    ],
)
def test_a_folder_that_can_be_read_in_several_ways_is_refused_by_name(tmp_path, names, match):
    with pytest.raises(errors.DataNotFoundError, match=match):
        read_from(folder_of(tmp_path, *names))


def test_one_file_has_the_split_that_its_name_says(tmp_path):
    folder_of(tmp_path, "test.jsonl", "a.jsonl")
    assert read_from(tmp_path / "test.jsonl", split="test") == ["test.jsonl"]
    assert read_from(tmp_path / "test.jsonl") == read_from(tmp_path / "test.jsonl", split=None)
    assert read_from(tmp_path / "a.jsonl", split="train") == ["a.jsonl"]
    for name, split in (("test.jsonl", "train"), ("a.jsonl", "test")):
        with pytest.raises(errors.DataNotFoundError, match="Leave the split out"):
            read_from(tmp_path / name, split=split)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.csv", b"prompt,chosen,rejected\np,c,r\n", "a table of text. Save it as JSON lines"),
        ("a.jsonl", b"PK\x03\x04....", "zip archive"),
        ("a.jsonl", b"BZh91AY", "bzip2"),
        ("a.jsonl", b"\x28\xb5\x2f\xfd..", "zstandard"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("a.jsonl", b"\n<!DOCTYPE html><html>", "a page of HTML"),
        ("a.json", b'{\n "rows": []\n}', "an object over several lines"),
        ("a.jsonl.gz", gzip.compress(b"<html>", mtime=0), "a page of HTML"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, name, content, match):
    with pytest.raises(errors.InvalidDataError, match=match) as caught:
        read_preferences(write(tmp_path / name, content), strict=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "bad", [LINE.decode().encode("utf-16-le"), b"\x00" * 9, b"\xef\xbb\xbf" + LINE, LINE[:-3]]
)
def test_zeros_marks_and_cut_lines_are_named_by_their_line(tmp_path, bad):
    with pytest.raises(errors.MalformedRowsError, match="a.jsonl:2: not "):
        read_preferences(write(tmp_path / "a.jsonl", LINE + b"\n" + bad + b"\n" + LINE))
