"""JupyterLab as a reader uses it: Run All in a copy of a chapter, a slider and its picture."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from browser_pages import browser

from irlbook.authoring.notebooks import read, write

ROOT = Path(__file__).parents[1]
SECONDS = 180
# Folded cells show no count.
DONE = r"""() => [...document.querySelectorAll(".jp-CodeCell:has(.cm-content) .jp-InputPrompt")]
  .every((prompt) => /\[\d+\]/.test(prompt.textContent))"""
BEGUN = r"""() => [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")]
  .some((prompt) => /\[(\d+|\*)\]/.test(prompt.textContent))"""
WHOLE = {"windowingMode": "none"}  # every cell is in the page, not only those in sight


@contextmanager
def lab(folder: Path):
    """The address of a JupyterLab server whose notebooks are those of a folder."""
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(json.dumps(WHOLE), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "ServerApp.root_dir": folder / "book",
        "ServerApp.port": port,
        "ServerApp.allow_root": True,
        "ServerApp.open_browser": False,
        "IdentityProvider.token": "",
        "ServerApp.disable_check_xsrf": True,
        "LabApp.user_settings_dir": folder / "settings",
        "LabApp.workspaces_dir": folder / "workspaces",
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--{k}={v}" for k, v in options.items())]
    paths = [os.fspath(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    log = (folder / "log").open("w")
    server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(2 * SECONDS):
            try:
                urllib.request.urlopen(address + "api", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text(encoding="utf-8")
                time.sleep(0.5)
        yield address
    finally:
        stop = urllib.request.Request(address + "api/shutdown", method="POST")
        with suppress(OSError):
            urllib.request.urlopen(stop, timeout=30).close()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
        log.close()


def run_all(page, address: str, name: str) -> None:
    """Open a notebook, run all of its cells, and wait until its last one is done."""
    # A workspace of its own: that of another notebook would open the other again, and run it.
    page.goto(f"{address}lab/workspaces/{Path(name).stem}/tree/{name}")
    page.get_by_text("| Idle").wait_for()
    for _ in range(SECONDS // 10):  # a click that comes too early is lost
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        for _ in range(20):
            if page.evaluate(BEGUN):
                page.wait_for_function(DONE)
                page.get_by_text("| Idle").wait_for()
                return
            time.sleep(0.5)
    pytest.fail(f"{name}: Run All Cells began nothing")


def without_outputs(notebook):
    """What a test sees of it later was printed by the test, and was saved."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    return notebook


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """(a page of a browser, the address of a server, the folder of its notebooks)."""
    with browser() as chromium:
        folder = tmp_path_factory.mktemp("lab")
        (folder / "book").mkdir()
        for name in ("00_tour.ipynb", "03_price_of_information.ipynb"):
            write(without_outputs(read(ROOT / "chapters" / name)), folder / "book" / name)
        with lab(folder) as address:
            page = chromium.new_page(viewport={"width": 1366, "height": 768})
            page.set_default_timeout(1000 * SECONDS)
            yield page, address, folder / "book"


def printed(path: Path) -> list[str]:
    return [
        output.get("text", "")
        for cell in read(path).cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    ]


def test_run_all_in_the_browser_gives_the_outputs_that_are_stored(opened):
    page, address, folder = opened
    run_all(page, address, "00_tour.ipynb")
    assert page.locator(".jp-OutputArea img").count() >= 2
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    page.keyboard.press("Control+s")
    original = printed(ROOT / "chapters" / "00_tour.ipynb")
    for _ in range(60):
        if (saved := printed(folder / "00_tour.ipynb")) == original:
            break
        time.sleep(0.5)
    assert saved == original


def test_a_slider_changes_the_picture(opened):
    page, address, _ = opened
    run_all(page, address, "03_price_of_information.ipynb")
    cell = page.locator(".jp-CodeCell:has(.noUi-handle)").first
    picture = cell.locator("img").first
    picture.wait_for(state="attached")
    before = picture.get_attribute("src")
    cell.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    for _ in range(60):
        if cell.locator("img").count() and cell.locator("img").first.get_attribute("src") != before:
            return
        time.sleep(0.5)
    pytest.fail("the picture stayed as it was")
