"""Linux: processes for answers, forked from one that has loaded the libraries and nothing else.

Loading NumPy and SciPy anew for every answer is most of what grading costs. The nursery loads them
once, never runs a student's code, and forks a process for each answer, which then locks itself up
as always (`irlbook.exercises.worker`). The forked process is handed to the grader as its own child,
so that it can be watched, waited for and killed like one that was started directly.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from typing import Any, BinaryIO

__all__ = ["Forked", "LOADED", "Nursery", "serve_forks"]

LOADED = ("numpy", "scipy.sparse", "irlbook.mdp", "irlbook.exercises.worker")
_START_SECONDS = 120.0
_MESSAGE = 2**16


class Forked:
    """A forked process, with those parts of `subprocess.Popen` that the grader uses."""

    def __init__(self, pid: int, stdin: BinaryIO, stdout: BinaryIO, stderr: BinaryIO) -> None:
        self.pid, self.stdin, self.stdout, self.stderr = pid, stdin, stdout, stderr
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, minus the signal that ended it, or None while it runs."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else has waited for it
                self.returncode = -signal.SIGKILL
            else:
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.002)
        return code

    def kill(self) -> None:
        """Kill it, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class Nursery:
    """The grader's side: starts the process that forks, and asks it for forks.

    Args:
        boot: code that puts the library on the path.
        libraries: what to load besides `LOADED`.
        environment: all that it sees of the environment while it loads.
    """

    def __init__(self, boot: str, libraries: tuple[str, ...], environment: dict[str, str]) -> None:
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._door.settimeout(_START_SECONDS)
        code = (
            f"{boot}from irlbook.exercises.nursery import serve_forks\nserve_forks({libraries})\n"
        )
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-X", "utf8", "-c", code],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=os.sep,
                env=environment,
                start_new_session=True,
            )
        except OSError:
            self._door.close()
            raise
        finally:
            theirs.close()

    def fork(self, scratch: str, environment: dict[str, str]) -> Forked:
        """A process of its own session in the scratch folder, which serves one answer.

        Raises:
            OSError: the nursery is gone, or does not answer.
        """
        pipes = [os.pipe() for _ in range(3)]
        ends = [pipes[0][0], pipes[1][1], pipes[2][1]]
        own = [pipes[0][1], pipes[1][0], pipes[2][0]]
        try:
            text = json.dumps({"scratch": scratch, "environment": environment}).encode()
            socket.send_fds(self._door, [text], ends)
            reply = self._door.recv(_MESSAGE)
            if not reply:
                raise ConnectionResetError("the nursery ended")
        except OSError:
            for end in own:
                os.close(end)
            raise
        finally:
            for end in ends:
                os.close(end)
        stdin, stdout, stderr = own
        return Forked(
            int(reply), os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb"), os.fdopen(stderr, "rb")
        )

    def leave(self) -> None:
        """Forget it, in a fork of the grader: it serves the other."""
        self._door.close()
        self.process.returncode = 0  # no child of this process, which must not wait for it

    def close(self) -> None:
        """End the nursery; forks that run go on."""
        self._door.close()
        self.process.kill()
        self.process.wait()


# ------------------------------------------------------------------------- the other process


def serve_forks(libraries: tuple[str, ...]) -> None:  # pragma: no cover
    """Load the libraries, then fork a process for each request until the grader is gone."""
    door = socket.socket(fileno=os.dup(0))
    for name in (*LOADED, *libraries):
        with contextlib.suppress(Exception):
            import_module(name)
    while True:
        request, ends, _, _ = socket.recv_fds(door, _MESSAGE, 3)
        if not request:
            os._exit(0)
        reading, writing = os.pipe()
        between = os.fork()
        if between == 0:  # it ends at once: its child then becomes one of the grader
            child = os.fork()
            if child == 0:
                _become_an_answer(json.loads(request), ends)
            os.write(writing, str(child).encode())
            os._exit(0)
        os.close(writing)
        pid = os.read(reading, 64)
        os.close(reading)
        os.waitpid(between, 0)
        for end in ends:
            os.close(end)
        door.send(pid)


def _become_an_answer(request: dict[str, Any], ends: list[int]) -> None:  # pragma: no cover
    """Be the process of one answer, from its streams to its end."""
    status = 1
    try:
        os.setsid()
        for number, end in enumerate(ends):
            os.dup2(end, number)
        os.closerange(3, 4096)
        os.chdir(request["scratch"])
        os.environ.clear()
        os.environ.update(request["environment"])
        tempfile.tempdir = None
        import_module("irlbook.exercises.worker").main()
        sys.stdout.flush()
        status = 0
    finally:
        os._exit(status)
