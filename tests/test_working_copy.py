"""A working copy: new notebooks come, the owner's changes stay, the originals are never touched."""

import json
import os

import pytest

from irlbook.authoring import repository
from irlbook.authoring.repository import MARK, find_book, find_copy, find_originals
from irlbook.authoring.working_copy import Change, renew, summary
from irlbook.errors import WorkingCopyError

TOUR, PRICE, TASK = "chapters/00_tour.ipynb", "chapters/03_price.ipynb", "exercises/03_price.ipynb"


@pytest.fixture
def book(tmp_path):
    """A folder of originals."""
    for path in (TOUR, TASK):
        (tmp_path / "book" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "book" / path).write_text(f"original {path}")
    return tmp_path / "book"


@pytest.fixture
def copy(tmp_path):
    return tmp_path / "copy"


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MARK
    }


def test_a_new_copy_holds_the_originals_and_no_more(book, copy):
    assert renew(copy, book) == [Change("added", TOUR), Change("added", TASK)]
    assert contents(copy) == contents(book)
    assert renew(copy, book) == []


def test_what_its_owner_changed_is_never_touched(book, copy):
    renew(copy, book)
    (copy / TASK).write_text("my answer")
    (copy / "chapters" / "notes.ipynb").write_text("mine alone")
    assert renew(copy, book) == []
    (book / TASK).write_text("original, improved")
    assert renew(copy, book) == [Change("kept", TASK)]
    assert renew(copy, book) == [Change("kept", TASK)]  # it is said until it is settled
    assert (copy / TASK).read_text() == "my answer"
    assert (copy / "chapters" / "notes.ipynb").read_text() == "mine alone"


def test_a_kept_notebook_that_is_renamed_makes_room_for_the_new_one(book, copy):
    renew(copy, book)
    (copy / TASK).write_text("my answer")
    (book / TASK).write_text("original, improved")
    (copy / TASK).rename(copy / "exercises" / "mine.ipynb")
    assert renew(copy, book) == [Change("added", TASK)]
    assert (copy / "exercises" / "mine.ipynb").read_text() == "my answer"


def test_new_chapters_come_and_untouched_ones_are_renewed(book, copy):
    renew(copy, book)
    (book / PRICE).write_text("a new chapter")
    (book / TOUR).write_text("original, improved")
    assert renew(copy, book) == [Change("renewed", TOUR), Change("added", PRICE)]
    assert contents(copy) == contents(book)


@pytest.mark.parametrize("mark", ["", "{", "[]", '{"copied_from": 3}', '{"copied_from": null}'])
def test_with_a_damaged_mark_all_that_differs_is_the_owners(book, copy, mark):
    renew(copy, book)
    (copy / MARK).write_text(mark)
    (copy / TASK).write_text("my answer")
    (book / TOUR).write_text("original, improved")
    assert renew(copy, book) == [Change("kept", TOUR), Change("kept", TASK)]
    assert (copy / TASK).read_text() == "my answer"


def test_files_that_were_there_before_the_first_copy_stay(book, copy):
    (copy / "chapters").mkdir(parents=True)
    (copy / TOUR).write_text("something of mine")
    assert renew(copy, book) == [Change("kept", TOUR), Change("added", TASK)]
    assert (copy / TOUR).read_text() == "something of mine"


def test_the_originals_are_refused_directly_and_through_a_link(book, copy):
    before = contents(book)
    with pytest.raises(WorkingCopyError, match="holds the originals"):
        renew(book, book)
    copy.mkdir()
    if os.name != "nt":
        (copy / "chapters").symlink_to(book / "chapters")
        with pytest.raises(WorkingCopyError, match="another folder"):
            renew(copy, book)
    assert contents(book) == before and not (book / MARK).exists()


def test_a_copy_that_stops_half_way_goes_on(book, copy, monkeypatch):
    def full(temporary, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("irlbook.authoring.notebooks.os.replace", full)
        with pytest.raises(OSError, match="No space"):
            renew(copy, book)
    assert contents(copy) == {}
    renew(copy, book)
    assert contents(copy) == contents(book)


def test_a_save_that_was_killed_half_way_is_undone(book, copy):
    """What Jupyter leaves: the version before as `.~name`, and a file that ends too early."""
    renew(copy, book)
    (copy / TASK).write_text('{"cells": ["my ans')
    (copy / "exercises" / ".~03_price.ipynb").write_text('{"cells": ["my answer so far"]}')
    whole = copy / "chapters" / "notes.ipynb"
    whole.write_text('{"cells": ["newer"]}')
    (copy / "chapters" / ".~notes.ipynb").write_text('{"cells": ["older"]}')
    (copy / "chapters" / ".~00_tour.ipynb").write_text('{"cells": ["half of the vers')
    assert renew(copy, book) == [Change("restored", TASK)]
    assert (copy / TASK).read_text() == '{"cells": ["my answer so far"]}'
    assert whole.read_text() == '{"cells": ["newer"]}'
    assert (copy / TOUR).read_text() == (book / TOUR).read_text()


def test_what_is_said_is_one_line_unless_something_changed(book, copy):
    assert list(summary(copy, renew(copy, book))) == [f"working copy: {copy} (new, 2 notebooks)"]
    assert list(summary(copy, renew(copy, book))) == [f"working copy: {copy} (2 notebooks)"]
    (copy / TASK).write_text("my answer")
    (book / TASK).write_text("improved")
    (book / PRICE).write_text("new")
    _, added, kept = summary(copy, renew(copy, book))
    assert added == f"  added: {PRICE}"
    assert TASK in kept and "rename yours and run irlbook lab again" in kept


def test_the_mark_says_which_version_the_copy_is_of(book, copy):
    import irlbook

    renew(copy, book)
    assert json.loads((copy / MARK).read_text())["version"] == irlbook.__version__


def test_a_reader_means_the_copy_around_them_and_else_the_originals(book, copy, tmp_path):
    renew(copy, book)
    assert find_copy(copy / "chapters") == copy == find_book(copy / "exercises")
    assert find_copy(tmp_path) is None
    checkout = tmp_path / "checkout"
    for folder in ("chapters", "irlbook"):
        (checkout / folder).mkdir(parents=True)
    (checkout / "irlbook" / "__init__.py").touch()
    assert find_originals(checkout / "chapters") == checkout == find_book(checkout)
    renew(checkout / "irlbook-work", book)
    assert find_book(checkout / "irlbook-work" / "chapters") == checkout / "irlbook-work"


def test_a_wheel_brings_its_own_originals(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "irlbook"
    (package / "book" / "chapters").mkdir(parents=True)
    monkeypatch.setattr(repository, "_PACKAGE", package)
    assert find_originals(tmp_path) == package / "book" == find_book(tmp_path)
