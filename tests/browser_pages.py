"""A browser for the tests: Debian's Chromium, driven by playwright; a test skips without one."""

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from irlbook.authoring.pdf import find_browser, opened


@contextmanager
def browser() -> Iterator:
    """A headless Chromium; skips the test, with the reason, where there is none."""
    if find_browser() is None:
        pytest.skip("no Chromium is installed here (on Debian: apt-get install chromium)")
    if missing := [p for p in ("playwright", "axe_playwright_python") if find_spec(p) is None]:
        pytest.skip(f"the extra browser is not installed ({', '.join(missing)})")
    with opened() as started:
        yield started


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """The server says nothing: what a page misses, the browser reports."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server for a folder."""
    handler = functools.partial(_Quiet, directory=os.fspath(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
