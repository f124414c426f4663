"""Work in several processes at once: results as they come, none lost when one process dies.

Each process talks over a pipe of its own, and ends when the grader does. On Linux it is forked, so
that it need not load the libraries again; elsewhere it is started afresh. Ctrl-C reaches the caller
alone, which then stops the others: each ends the answer that it is running before it goes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

__all__ = ["STOP_SECONDS", "in_parallel"]

STOP_SECONDS = 15.0


def _stop(*_: Any) -> None:  # pragma: no cover - in the other process
    raise SystemExit(0)


def _serve(
    connection: Connection, others: list[Connection], work: Callable[..., Any]
) -> None:  # pragma: no cover
    """Work on what comes through the pipe until it closes."""
    for other in others:  # a fork has the caller's ends too, and none would ever see them close
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    with contextlib.suppress(EOFError, OSError):
        while True:
            number, arguments = connection.recv()
            connection.send((number, work(*arguments)))


class _Process:
    """A process and the number of the task that it works on."""

    def __init__(self, work: Callable[..., Any], others: list[Connection]) -> None:
        way = "fork" if sys.platform.startswith("linux") else "spawn"
        context: Any = multiprocessing.get_context(way)
        self.connection, theirs = context.Pipe()
        inherited = [self.connection, *others] if way == "fork" else []
        self.process = context.Process(target=_serve, args=(theirs, inherited, work), daemon=True)
        self.process.start()
        theirs.close()
        self.number = -1

    def give(self, number: int, arguments: tuple[Any, ...]) -> None:
        self.number = number
        self.connection.send((number, arguments))

    def stop(self) -> None:
        self.process.terminate()
        self.process.join(STOP_SECONDS)
        if self.process.is_alive():
            self.process.kill()
        self.connection.close()


def in_parallel(
    work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], jobs: int
) -> Iterator[tuple[int, Any]]:
    """Call `work(*task)` for each task in `jobs` processes.

    Args:
        work: a function of a module, and so are all functions among its arguments.
        tasks: the arguments of each call; they and the results are pickled.
        jobs: how many processes.

    Yields:
        (number of the task, result) as they finish; None for a task whose process died.
    """
    waiting = iter(enumerate(tasks))
    processes: list[_Process] = []

    def employ(process: _Process | None) -> None:
        """Give a process the next task (None: a new process, where there is work for it)."""
        for number, arguments in waiting:
            if process is None:
                process = _Process(work, [p.connection for p in processes])
                processes.append(process)
            process.give(number, arguments)
            return
        if process is not None:
            processes.remove(process)
            process.stop()

    try:
        for _ in range(jobs):
            employ(None)
        while processes:
            ready = wait([p.connection for p in processes])
            for process in [p for p in processes if p.connection in ready]:
                try:
                    number, result = process.connection.recv()
                except (EOFError, OSError):
                    number, result = process.number, None
                    processes.remove(process)
                    process.stop()
                    yield number, result
                    employ(None)
                    continue
                yield number, result
                employ(process)
    finally:
        for process in processes:
            process.process.terminate()
        for process in processes:
            process.stop()
