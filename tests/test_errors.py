"""Errors are named: each says by its class what is wrong, and by its line what to do."""

import ast
import builtins
from pathlib import Path

import pytest
import torch

import irlbook
from irlbook import errors
from irlbook.posttraining import dpo

PACKAGE = Path(irlbook.__file__).parent
CAUGHT = {  # raised to be caught a few lines on, and named there
    "_front.py",  # AttributeError, which Python asks for
    "authoring/notebooks.py",
    "data/files.py",
    "exercises/expect.py",
    "exercises/extract.py",
    "exercises/figures.py",
    "exercises/late.py",
    "exercises/marks.py",
    "exercises/nursery.py",  # ConnectionResetError, as a process that died gives it
    "exercises/tables.py",  # OSError, as the file system gave it, with the name of the file
    "exercises/worker.py",
    "lm/models.py",
    "mdp.py",
    "posttraining/mistake_finding.py",
    "posttraining/model_check.py",
}
ABSTRACT = {"NotImplementedError"}


def raised(source: str) -> set[str]:
    """The built-in exceptions that a module raises by name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            thing = getattr(builtins, error.id, None) if isinstance(error, ast.Name) else None
            if isinstance(thing, type) and issubclass(thing, Exception):
                found.add(error.id)
    return found - ABSTRACT


def test_the_library_raises_errors_with_names_of_its_own():
    bare = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if raised(path.read_text(encoding="utf-8"))
    }
    assert bare == CAUGHT


def test_a_planted_bare_error_is_seen():
    assert raised("def f():\n    if x:\n        raise ValueError('no')\n") == {"ValueError"}
    assert raised("raise KeyError") == {"KeyError"}
    assert raised("raise ShapeError('no')\ntry: ...\nexcept OSError:\n    raise") == set()


def test_a_loss_of_the_wrong_shape_speaks_of_no_mdp():
    with pytest.raises(errors.ShapeError) as caught:
        dpo.dpo_loss(torch.zeros(6), torch.zeros(6))
    assert not isinstance(caught.value, errors.InvalidMDPError)
    assert isinstance(caught.value, errors.IrlbookError) and isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name[0].isupper()])
def test_every_error_has_a_sentence(name):
    thing = getattr(errors, name)
    assert issubclass(thing, errors.IrlbookError | UserWarning)
    assert thing.__doc__ and thing.__doc__.strip().splitlines()[0].endswith(".")
