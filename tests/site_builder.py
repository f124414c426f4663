"""The website, built once from the committed outputs, for the tests that read or open its pages."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx-mathjax-offline", "pybtex")


def built_site(folder: Path) -> Path:
    """The folder of the site: IRLBOOK_SITE where the environment names one, else built anew."""
    if given := os.environ.get("IRLBOOK_SITE"):
        return Path(given).resolve()
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        pytest.skip(f"the extra docs is not installed ({', '.join(missing)})")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-c", "docs"]
    done = subprocess.run(
        [*command, "-d", folder / "doctrees", ".", folder / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def pages_of(site: Path) -> list[Path]:
    """Its pages; the theme leaves templates of its own in _static."""
    return [p for p in sorted(site.rglob("*.html")) if "_static" not in p.parts]
