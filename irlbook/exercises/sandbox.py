"""The parent's side of the process that runs a student's function: start, talk, watch, kill."""

from __future__ import annotations

import contextlib
import ctypes
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
from secrets import token_hex
from typing import Any, BinaryIO, cast

import psutil

from irlbook.errors import CheckFailed, CodecError
from irlbook.exercises import codec, container, worker
from irlbook.exercises.answers import Piece
from irlbook.exercises.model import GraderError
from irlbook.exercises.nursery import Forked, Nursery

__all__ = [
    "KEPT_OUTPUT",
    "PRELOAD",
    "START_SECONDS",
    "Worker",
    "adopt_orphans",
    "kill_tree",
    "would_run_as_root",
]

START_SECONDS = 120.0
KEPT_OUTPUT = 16 * 2**10
PRELOAD = ("numpy", "scipy", "torch", "matplotlib.pyplot", "gymnasium", "irlbook")
_ROOT = str(container.CHECKOUT)
# the same copy of the library as here, whatever else is installed
_BOOT = f"import sys\nsys.path[:0] = [] if {_ROOT!r} in sys.path else [{_ROOT!r}]\n"
_MAIN = f"{_BOOT}from irlbook.exercises.worker import main\nmain()\n"


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


def would_run_as_root() -> bool:
    """Whether answers would run as root: the grader does, and `nobody` cannot read Python."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and not _can_drop_root()


_orphans_lock = threading.Lock()
_alive: set[int] = set()  # processes that belong to a worker


def adopt_orphans() -> bool:
    """Linux: what outlives an answer becomes a child of this process, which can then end it.

    Returns:
        whether that is so.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # PR_SET_CHILD_SUBREAPER
            return not ctypes.CDLL(None).prctl(36, ctypes.c_ulong(1), 0, 0, 0)
    return False


_nurseries: dict[tuple[str, ...], Nursery] = {}


def _start_over() -> None:
    """A fork of this process has nurseries of its own."""
    global _orphans_lock
    _orphans_lock = threading.Lock()
    for nursery in _nurseries.values():
        nursery.leave()
    _nurseries.clear()
    _alive.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)


def _fork(scratch: str, libraries: tuple[str, ...]) -> Forked | None:
    """A forked process for an answer; None where it must be started anew. Holds the lock."""
    for _ in range(2):  # a nursery that has died is replaced once
        try:
            if libraries not in _nurseries:
                home = _environment(os.sep)
                _nurseries[libraries] = Nursery(_BOOT, libraries, home)
                _alive.add(_nurseries[libraries].process.pid)
            return _nurseries[libraries].fork(scratch, _environment(scratch))
        except OSError:
            gone = _nurseries.pop(libraries, None)
            if gone is not None:
                gone.close()
                _alive.discard(gone.process.pid)
    return None


def _orphans(since: float) -> list[psutil.Process]:
    """Children of other sessions than ours, younger than the answer, that no worker started."""
    found: list[psutil.Process] = []
    if not sys.platform.startswith("linux"):
        return found
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, OSError):
            stranger = child.pid not in _alive and os.getsid(child.pid) != os.getsid(0)
            if stranger and child.create_time() >= since - 1:
                found += [child, *child.children(recursive=True)]
    return found


def kill_tree(process: subprocess.Popen[bytes] | Forked) -> None:
    """Kill a process and all that it started, also what has left its family by now."""
    since = time.time()
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(process.pid)
        since = leader.create_time()
        family = leader.children(recursive=True)
    with contextlib.suppress(OSError):
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
    with _orphans_lock:
        _alive.discard(process.pid)
        for _ in range(20):  # one that forks on and on is met again
            for child in family:
                with contextlib.suppress(psutil.Error):
                    child.kill()
            psutil.wait_procs(family, timeout=2)
            family = _orphans(since)
            if not family:
                break


def _remove(folder: str) -> None:
    """Remove a folder, however deep: each folder within is brought to the top and emptied there.

    No path is ever longer than two names, and no link is followed: the student made this tree.
    """
    if os.open not in os.supports_dir_fd or os.scandir not in os.supports_fd:  # Windows
        shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        top = os.open(folder, _FOLDER)
        try:
            waiting = _empty(top, top)
            while waiting:
                name = waiting.pop()
                with contextlib.suppress(OSError):
                    place = os.open(name, _FOLDER, dir_fd=top)
                    try:
                        waiting += _empty(place, top)
                    finally:
                        os.close(place)
                    os.rmdir(name, dir_fd=top)
        finally:
            os.close(top)
        os.rmdir(folder)


_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


def _empty(place: int, top: int) -> list[str]:
    """Remove a folder's files and bring its folders to the top; returns their new names there."""
    moved = []
    entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in os.scandir(place)]
    for name, is_folder in entries:
        with contextlib.suppress(OSError):
            if not is_folder:
                os.unlink(name, dir_fd=place)
                continue
            os.chmod(name, 0o700, dir_fd=place)  # the student may have taken rights away
            new = token_hex(16)  # one that the student cannot have taken
            os.rename(name, new, src_dir_fd=place, dst_dir_fd=top)
            moved.append(new)
    return moved


class Worker:
    """A child process that serves one student function. Use as a context manager.

    Args:
        name: the function.
        pieces: the code that defines it.
        flags: `__future__` flags of the notebook.
        without: modules that the answer may not use.
        timeout: seconds that the answer may take, all calls together (start-up excluded).
        memory_mb: memory that it may take on top of what the libraries need.
        hidden: folders that it may not read (the checks and the solutions never are).
        landlock: use the kernel's help where there is any (False: to test what is left).
        bubblewrap: start it in a bubblewrap container.

    `send` raises CheckFailed for what the student's code did (too slow, too much memory, exit) and
    GraderError when the machinery itself fails.
    """

    def __init__(
        self,
        name: str,
        pieces: Sequence[Piece],
        *,
        flags: int = 0,
        without: Sequence[str] = (),
        timeout: float = 20.0,
        memory_mb: int = 2048,
        hidden: Sequence[Path | str] = (),
        landlock: bool = True,
        bubblewrap: bool = False,
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
        self._hidden = [*container.secrets(), *map(str, hidden)]
        preload = [module for module in PRELOAD if module in code]
        self._torch = "torch" in preload
        self._task = {
            "name": name,
            "pieces": [[p.cell, p.source, list(p.indices)] for p in pieces],
            "flags": flags,
            "without": list(without),
            "preload": preload,
            "timeout": float(timeout),
            "memory_mb": int(memory_mb),
            "hidden": self._hidden,
            "landlock": landlock,
        }
        self._bubblewrap = bubblewrap
        self.process: subprocess.Popen[bytes] | Forked

    def __enter__(self) -> Worker:
        self.scratch = os.path.realpath(tempfile.mkdtemp(prefix="irlbook-answer-"))
        drop = _can_drop_root() and not self._bubblewrap
        if drop:
            os.chown(self.scratch, worker.NOBODY, worker.NOBODY)
        forks = adopt_orphans() and not self._bubblewrap
        libraries = ("torch",) if self._torch else ()
        try:
            with _orphans_lock:
                forked = _fork(self.scratch, libraries) if forks else None
                self.process = forked or self._spawn()
                _alive.add(self.process.pid)
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

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-B", "-X", "utf8", "-c", _MAIN]
        if self._bubblewrap:
            command = container.bubblewrap(command, self.scratch, self._hidden)
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.scratch,
            env=_environment(self.scratch),
            start_new_session=os.name == "posix",
        )

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
        self._base_rss = self._rss()

    def __exit__(self, *exception: Any) -> None:
        kill_tree(self.process)
        self._tasks.put(None)
        _remove(self.scratch)

    def _talk(self) -> None:
        """Thread: writes each request and reads its reply, so that nothing can block the grader."""
        requests = cast(BinaryIO, self.process.stdin)
        replies = cast(BinaryIO, self.process.stdout)
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

    def _rss(self) -> int:
        """Bytes in use by the child and all that it started."""
        total = 0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.process.pid)
            total += process.memory_info().rss
            for child in process.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += child.memory_info().rss
        return total

    def _fail(self, property: str, hint: str, detail: str = "") -> CheckFailed:
        self._failure = CheckFailed(property, hint, detail=detail)
        kill_tree(self.process)
        return self._failure

    def _died(self) -> CheckFailed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=1)
        code = self.process.poll()
        if self._bubblewrap and code is not None and code > 128:
            code = 128 - code  # it passes signals on as a shell does
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
            if (self._rss() - self._base_rss) / 2**20 > self.memory_mb:
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
