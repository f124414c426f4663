"""`irlbook lab` for real: a server over the copy, asked by HTTP what a browser would ask."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from irlbook.authoring.repository import find_originals
from irlbook.authoring.working_copy import Change, renew

PLUGIN = "@jupyterlab/docmanager-extension:plugin"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A running JupyterLab: its folder, and how to ask it."""
    pytest.importorskip("jupyterlab")
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--no-browser", "--ServerApp.port_retries=0", "--ServerApp.token=t"]
    root = ["--allow-root"] * (getattr(os, "geteuid", lambda: 1)() == 0)
    command = [sys.executable, "-m", "irlbook", "lab", "copy", *root, f"--port={port}", *options]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)

    def ask(path: str) -> dict:
        address = f"http://127.0.0.1:{port}/{path}"
        request = urllib.request.Request(address, headers={"Authorization": "token t"})
        return json.load(urllib.request.urlopen(request, timeout=30))

    try:
        for _ in range(240):
            try:
                ask("api/status")
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.25)
        yield folder, ask
    finally:
        process.terminate()
        assert process.wait(60) is not None
    with socket.socket() as probe:  # nothing of it is left behind
        assert os.name == "nt" or probe.connect_ex(("127.0.0.1", port)) != 0


def test_the_server_shows_the_copy_and_saves_every_ten_seconds(lab):
    folder, ask = lab
    shown = {entry["path"] for entry in ask("api/contents/chapters")["content"]}
    assert shown == {f"chapters/{path.name}" for path in (folder / "copy/chapters").glob("*.ipynb")}
    settings = ask(f"lab/api/settings/{PLUGIN}")
    assert settings["schema"]["properties"]["autosaveInterval"]["default"] == 10


def test_a_save_that_fails_half_way_leaves_the_version_before(lab):
    """What `irlbook lab` restores is what Jupyter keeps while it writes."""
    from jupyter_server.services.contents.fileio import atomic_writing

    folder, _ = lab
    path = folder / "copy" / "exercises" / "01_mdps_and_planning.ipynb"
    answer = '{"cells": ["my answer"]}'
    path.write_text(answer)
    with atomic_writing(str(path)) as file:
        file.write('{"cells": ["my ans')
        file.flush()
        # the machine dies here: nothing below was done to this copy of the folder
        shutil.copytree(folder / "copy", folder / "after")
    changes = renew(folder / "after", find_originals())
    assert Change("restored", f"exercises/{path.name}") in changes
    assert (folder / "after" / "exercises" / path.name).read_text() == answer
