"""Grading inside a container: the whole grader with docker or podman, each answer with bubblewrap.

The command lines are made here and nowhere else; what each protects stands in the README.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from irlbook.errors import ContainerError, NotebookError
from irlbook.exercises.worker import NOBODY

__all__ = [
    "CHECKOUT",
    "IMAGE",
    "PACKAGE",
    "SCRATCH_BYTES",
    "bubblewrap",
    "engine_command",
    "find_bubblewrap",
    "grade_in_container",
    "secrets",
]

IMAGE = "irlbook-grade"
SCRATCH_BYTES = 256 * 2**20
PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parent  # or site-packages
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/nix/store", "/etc/ld.so.cache", "/etc/alternatives")


def secrets() -> list[str]:
    """Folders that no answer may read: the checks with their references, and the solutions."""
    folders = [PACKAGE / "exercises" / name for name in ("chapters", "wrong_answers")]
    if (CHECKOUT / "pyproject.toml").exists():
        folders += [CHECKOUT / "solutions", CHECKOUT / "tests"]
    return [str(folder) for folder in folders if folder.is_dir()]


def bubblewrap(command: Sequence[str], scratch: str, hidden: Sequence[str] = ()) -> list[str]:
    """The command, run by bubblewrap: it sees Python and the library, nothing else, as nobody.

    It has no network, no other process, no secret folder, and a scratch folder in memory. All that
    it starts ends with it.
    """
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    python = [sys.prefix, sys.base_prefix, *site.getsitepackages(), str(PACKAGE), *libraries]
    places = list(dict.fromkeys(p for p in (*_SYSTEM, *python) if p and os.path.exists(p)))
    binds = [word for place in places for word in ("--ro-bind", place, place)]
    real = [os.path.realpath(place) + os.sep for place in places]
    masks = [
        word
        for folder in hidden
        if os.path.realpath(folder).startswith(tuple(real))
        for word in ("--tmpfs", folder)
    ]
    nobody = str(NOBODY)
    return [
        *("bwrap", "--unshare-all", "--die-with-parent", "--new-session"),
        *("--unshare-user", "--uid", nobody, "--gid", nobody),
        *binds,
        *masks,
        *("--proc", "/proc", "--dev", "/dev"),
        *("--size", str(SCRATCH_BYTES), "--tmpfs", scratch, "--chdir", scratch),
        *command,
    ]


def find_bubblewrap() -> None:
    """Make sure that bubblewrap works here.

    Raises:
        ContainerError: it is not installed, or the kernel does not let it make containers.
    """
    if shutil.which("bwrap") is None:
        raise ContainerError(
            "bubblewrap is not installed: `apt install bubblewrap` (Linux only), or grade with "
            "--container docker"
        )
    folder = os.path.join(tempfile.gettempdir(), "irlbook-answer")
    test = bubblewrap([sys.executable, "-I", "-c", ""], folder)
    done = subprocess.run(test, capture_output=True, text=True, timeout=60)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ContainerError(
            f"bubblewrap cannot make a container here ({why}); are user namespaces allowed? "
            "Grade with --container docker"
        )


def engine_command(
    engine: str,
    submissions: Path | str,
    out_csv: Path | str,
    feedback: Path | str,
    options: Sequence[str] = (),
    *,
    memory_mb: int = 2048,
    image: str = IMAGE,
    files: Mapping[str, Path | str] | None = None,
    upload: Path | str | None = None,
) -> list[str]:
    """The command that grades inside docker or podman.

    The submissions are read-only there; of this machine only the folders of the tables and of the
    pages can be written. No network, few rights, and bounds on memory and processes.

    Args:
        options: further options of `irlbook exercises grade`.
        files: further options that name a file to read: it is to be read there, too.
        upload: the file of `--upload`, whose folder can be written.
        memory_mb: what the answers may take together; the container has that and 4 GB more.

    Raises:
        NotebookError: there is no such folder.
        ContainerError: the engine is not installed.
    """
    if not Path(submissions).is_dir():  # the engine would make one
        raise NotebookError(f"no folder {submissions}: where are the submissions?")
    if shutil.which(engine) is None:
        raise ContainerError(f"{engine} is not installed, or not on the PATH")
    out, pages = Path(out_csv).resolve(), Path(feedback).resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    pages.mkdir(parents=True, exist_ok=True)
    volumes, words = [], list(options)
    for number, (option, file) in enumerate((files or {}).items()):
        place = f"/given/{number}/{Path(file).name}"
        volumes += ["--volume", f"{Path(file).resolve()}:{place}:ro"]
        words += [option, place]
    if upload is not None:
        target = Path(upload).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        volumes += ["--volume", f"{target.parent}:/upload"]
        words += ["--upload", f"/upload/{target.name}"]
    rights = ("SETUID", "SETGID", "CHOWN", "KILL", "DAC_OVERRIDE", "FOWNER")
    return [
        *(engine, "run", "--rm", "--init", "--network", "none", "--read-only"),
        *("--cap-drop", "ALL", *(word for right in rights for word in ("--cap-add", right))),
        *("--security-opt", "no-new-privileges", "--pids-limit", "512"),
        *("--memory", f"{memory_mb + 4096}m", "--tmpfs", "/tmp:rw,exec,size=1g"),
        *("--volume", f"{Path(submissions).resolve()}:/submissions:ro"),
        *("--volume", f"{out.parent}:/out", "--volume", f"{pages}:/feedback"),
        *volumes,
        *(image, "/submissions", "--out", f"/out/{out.name}", "--feedback", "/feedback"),
        *words,
    ]


def grade_in_container(command: Sequence[str]) -> int:
    """Run it, its output on ours; returns its exit status."""
    return subprocess.run(command).returncode
