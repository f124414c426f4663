"""Fixtures of several files."""

import sys

import pytest

from irlbook import cli


@pytest.fixture
def call(monkeypatch, capsys):
    """Run `irlbook ARGS` in this process: (exit code, stdout, stderr)."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["irlbook", *map(str, args)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture(autouse=True)
def no_figure_is_left_open():
    """pyplot keeps every figure until it is closed, and warns the test that opens one too many."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
