"""The parent's side of the process that runs a student's function: start, talk, watch, kill."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from irlbook.errors import CheckFailed, CodecError
from irlbook.exercises import codec, worker
from irlbook.exercises.answers import Piece
from irlbook.exercises.model import GraderError

START_SECONDS = 120.0
KEPT_OUTPUT = 16 * 2**10
PRELOAD = ("numpy", "scipy", "torch", "matplotlib", "gymnasium", "irlbook")
_ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = (
    "import sys\n"
    "try:\n    import irlbook\n"
    "except ImportError:\n    sys.path.append({root!r})\n"
    "from irlbook.exercises.worker import main\n"
    "main()\n"
)


def _environment(scratch: str) -> dict[str, str]:
    """All that the child gets to see of the environment."""
    keep = ("SYSTEMROOT", "WINDIR", "COMSPEC", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    given = {name: os.environ[name] for name in keep if name in os.environ}
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    folders = ("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "MPLCONFIGDIR", "XDG_CACHE_HOME")
    return {
        **given,
        **{name: "1" for name in threads},
        **{name: scratch for name in folders},
        # Windows finds the libraries' own libraries through PATH
        "PATH": "/usr/bin:/bin" if os.name == "posix" else os.environ.get("PATH", ""),
        "LANG": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "PYTHONHASHSEED": "0",
    }


def _world_readable(path: str) -> bool:
    """Whether any user can reach and read this file."""
    place = Path(path).resolve()
    return bool(place.stat().st_mode & 0o004) and all(
        p.stat().st_mode & 0o001 for p in place.parents
    )


def _can_drop_root() -> bool:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    import numpy

    with contextlib.suppress(OSError):
        return all(_world_readable(p) for p in (__file__, numpy.__file__, os.__file__))
    return False


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(OSError):
        process.kill()
    for child in family:
        with contextlib.suppress(psutil.Error):
            child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
    psutil.wait_procs(family, timeout=2)


def _remove(folder: str) -> None:
    for place, folders, _ in os.walk(folder):  # the student may have taken rights away
        for name in folders:
            path = os.path.join(place, name)
            with contextlib.suppress(OSError):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


class Worker:
    """A child process that serves one student function. Use as a context manager.

    Args:
        name: the function.
        pieces: the code that defines it.
        flags: `__future__` flags of the notebook.
        timeout: seconds that the answer may take, all calls together (start-up excluded).
        memory_mb: memory that it may take on top of what the libraries need.
        hidden: folders that it may not read.
        landlock: use the kernel's help where there is any (False: to test what is left).

    `send` raises CheckFailed for what the student's code did (too slow, too much memory, exit) and
    GraderError when the machinery itself fails.
    """

    def __init__(
        self,
        name: str,
        pieces: Sequence[Piece],
        *,
        flags: int = 0,
        timeout: float = 20.0,
        memory_mb: int = 2048,
        hidden: Sequence[Path | str] = (),
        landlock: bool = True,
    ) -> None:
        self.name, self.timeout, self.memory_mb = name, timeout, memory_mb
        self.printed = 0
        self.output = b""
        self._left = timeout
        self._number = 0
        self._failure: CheckFailed | None = None
        self._base_rss = 0
        self._tasks: queue.Queue[tuple[int, bytes] | None] = queue.Queue()
        self._replies: queue.Queue[tuple[int, bytes] | Exception] = queue.Queue()
        code = "\n".join(piece.source for piece in pieces)
        self._task = {
            "name": name,
            "pieces": [[p.cell, p.source, list(p.indices)] for p in pieces],
            "flags": flags,
            "preload": [module for module in PRELOAD if module in code],
            "timeout": float(timeout),
            "memory_mb": int(memory_mb),
            "hidden": [str(folder) for folder in hidden],
            "landlock": landlock,
        }

    def __enter__(self) -> Worker:
        self.scratch = os.path.realpath(tempfile.mkdtemp(prefix="irlbook-answer-"))
        drop = _can_drop_root()
        if drop:
            os.chown(self.scratch, worker.NOBODY, worker.NOBODY)
        command = [sys.executable, "-I", "-B", "-X", "utf8", "-c", _BOOT.format(root=_ROOT)]
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self.scratch,
                env=_environment(self.scratch),
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            _remove(self.scratch)
            raise GraderError(f"cannot start a process for the answer: {error}") from None
        threading.Thread(target=self._talk, daemon=True).start()
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self._start(drop)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, drop: bool) -> None:
        self._tasks.put((0, codec.dumps({**self._task, "drop_root": drop})))
        try:
            reply = self._replies.get(timeout=START_SECONDS)
        except queue.Empty:
            reply = TimeoutError()
        if isinstance(reply, Exception) or reply[0] != 0:
            tail = self.output.decode(errors="replace").strip().splitlines()[-1:]
            raise GraderError(f"the process for the answer did not start {' '.join(tail)}".strip())
        self.landlock = bool(codec.loads(reply[1]).get("landlock"))
        with contextlib.suppress(psutil.Error):
            self._base_rss = psutil.Process(self.process.pid).memory_info().rss

    def __exit__(self, *exception: Any) -> None:
        kill_tree(self.process)
        self._tasks.put(None)
        _remove(self.scratch)

    def _talk(self) -> None:
        """Thread: writes each request and reads its reply, so that nothing can block the grader."""
        requests, replies = self.process.stdin, self.process.stdout
        assert requests is not None and replies is not None
        try:
            while (task := self._tasks.get()) is not None:
                worker.write_frame(requests, *task)
                self._replies.put(worker.read_frame(replies))
        except (OSError, EOFError, ValueError) as error:  # CodecError is a ValueError
            self._replies.put(error)
        for stream in (requests, replies):
            with contextlib.suppress(OSError, ValueError):
                stream.close()

    def _listen(self) -> None:
        """Thread: keeps the first prints and counts the rest."""
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            while chunk := os.read(stream.fileno(), 65536):
                self.printed += len(chunk)
                if len(self.output) < KEPT_OUTPUT:
                    self.output += chunk[: KEPT_OUTPUT - len(self.output)]

    def _memory(self) -> float:
        """MB in use by the child and all that it started, beyond the libraries."""
        total = -self._base_rss
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.process.pid)
            total += process.memory_info().rss
            for child in process.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += child.memory_info().rss
        return total / 2**20

    def _fail(self, property: str, hint: str, detail: str = "") -> CheckFailed:
        self._failure = CheckFailed(property, hint, detail=detail)
        kill_tree(self.process)
        return self._failure

    def _died(self) -> CheckFailed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=1)
        code = self.process.poll()
        if code is not None and code < 0:
            how = f"signal {-code}" + (" (out of memory?)" if code == -9 else "")
        else:
            how = f"exit code {code}"
        return self._fail(
            "the function returns",
            "do not end the process (exit, os._exit), and look for endless recursion "
            "or a crash in compiled code",
            f"the process of your answer ended before it returned ({how})",
        )

    def send(self, request: bytes) -> bytes:
        """Carry an encoded call to the child and its reply back."""
        if self._failure is not None:
            raise self._failure
        self._number += 1
        self._tasks.put((self._number, request))
        begin = time.monotonic()
        while True:
            try:
                reply = self._replies.get(timeout=0.05)
                break
            except queue.Empty:
                pass
            if time.monotonic() - begin > self._left:
                raise self._fail(
                    f"it finishes in {self.timeout:g} seconds",
                    "look for a loop that never ends, or for work that grows too fast",
                    "your code was stopped",
                ) from None
            if self._memory() > self.memory_mb:
                raise self._fail(
                    f"it needs less than {self.memory_mb} MB of memory",
                    "look for an array or a list that grows without end",
                    "your code was stopped",
                ) from None
        self._left -= time.monotonic() - begin
        if isinstance(reply, CodecError):
            raise self._fail("the result is of a reasonable size", "return what the task asks for")
        if isinstance(reply, Exception):
            raise self._died()
        if reply[0] != self._number:
            raise self._fail(
                "the function only returns its result", "do not write to open file descriptors"
            )
        return reply[1]
