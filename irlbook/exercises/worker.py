"""The process that runs a student's function, and what keeps it from doing harm.

Started by `sandbox.Worker` as `python -I -B`, in an empty scratch folder with a scrubbed
environment. It reads frames from its standard input (first the task, then encoded calls) and
writes frames to its standard output; the student's own prints go elsewhere. It knows neither the
expected results nor the check: whatever it replies is only the student's answer.

What confines it, each as far as the platform has it: resource limits; on Linux, Landlock (no
writing outside the scratch folder, no reading outside the Python installation, no execve, no
TCP, no signals to others); when started by root, another user; and everywhere an audit hook.
The audit hook alone stops accidents and simple mischief, not a determined attacker: for hostile
code run the grader in a container (`irlbook.exercises.container`).

The tests run all of this, in processes that are too well locked up to report their coverage.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, BinaryIO

from irlbook.errors import CodecError
from irlbook.exercises import codec
from irlbook.exercises.answers import Piece, describe, load_function, serve

__all__ = [
    "MAX_FILE",
    "MAX_FRAME",
    "MAX_PROCESSES",
    "NOBODY",
    "confine_with_landlock",
    "drop_root",
    "install_audit_hook",
    "limit_resources",
    "main",
    "read_frame",
    "readable_parts",
    "readable_roots",
    "write_frame",
]

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MAX_FILE = 64 * 2**20
MAX_PROCESSES = 256
NOBODY = 65534
MAX_FRAME = codec.MAX_JSON + codec.MAX_BUFFERS + 64

_SYSTEM = ("/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", "/opt", "/nix/store")
_HEADER = struct.Struct("<II")  # sequence number, length


def write_frame(stream: BinaryIO, number: int, payload: bytes) -> None:
    """Write a numbered frame and flush it."""
    stream.write(_HEADER.pack(number, len(payload)) + payload)
    stream.flush()


def read_frame(stream: BinaryIO) -> tuple[int, bytes]:
    """Read a numbered frame.

    Raises:
        EOFError: the other side is gone.
        CodecError: the frame is larger than allowed.
    """
    head = stream.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise EOFError
    number, length = _HEADER.unpack(head)
    if length > MAX_FRAME:
        raise CodecError("a reply larger than allowed")
    payload = stream.read(length)
    if len(payload) < length:
        raise EOFError
    return number, payload


# ------------------------------------------------------------------------------- confinement


def readable_roots(scratch: str) -> list[str]:  # pragma: no cover
    """Folders that the child may read: the Python installation, the system, its scratch.

    Of a checkout of the book it is the package alone, for the solutions lie beside it.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    checkout = os.path.dirname(package)
    if not os.path.exists(os.path.join(checkout, "pyproject.toml")):
        checkout = ""
    path = [p for p in sys.path if os.path.realpath(p) != os.path.realpath(checkout or os.sep)]
    roots = [scratch, package, sys.prefix, sys.base_prefix, *path, *libraries, *_SYSTEM]
    return sorted({os.path.realpath(r) for r in roots if r and os.path.exists(r)})


def readable_parts(
    roots: list[str], hidden: list[str]
) -> tuple[set[str], set[str]]:  # pragma: no cover
    """(what may be read, folders that may only be listed) of the roots, the hidden ones left out.

    The kernel's rules can only add: around a hidden folder, its neighbours are allowed one by one.
    """
    readable, listable = set(), set()
    for root in roots:
        inner = [h for h in hidden if h == root or h.startswith(root.rstrip(os.sep) + os.sep)]
        if not inner:
            readable.add(root)
        elif root not in inner:
            listable.add(root)
            with contextlib.suppress(OSError):
                below = [e.path for e in os.scandir(root) if not e.is_symlink()]
                for found, into in zip(
                    readable_parts(below, inner), (readable, listable), strict=True
                ):
                    into |= found
    return readable, listable


def limit_resources(memory_mb: int, seconds: float) -> None:  # pragma: no cover
    """Set what limits the platform has: memory on top of what is in use now, CPU, file size."""
    if resource is None:
        return
    used = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limits = {
        "RLIMIT_CPU": int(seconds) + 5,
        "RLIMIT_FSIZE": MAX_FILE,
        "RLIMIT_CORE": 0,
    }
    if used:  # only where we know what is in use: elsewhere the parent watches the memory alone
        limits["RLIMIT_AS"] = used + memory_mb * 2**20
    if hasattr(os, "getuid") and os.getuid() == NOBODY:
        limits["RLIMIT_NPROC"] = MAX_PROCESSES
    for name, value in limits.items():
        with contextlib.suppress(OSError, ValueError, AttributeError):
            resource.setrlimit(getattr(resource, name), (value, value))


def confine_with_landlock(scratch: str, hidden: list[str]) -> bool:  # pragma: no cover
    """Linux: let the kernel forbid writing outside the scratch folder, execve, TCP and signals.

    Nothing may be read outside `readable_roots`, and nothing in the hidden folders.

    Returns:
        False where the kernel has no Landlock.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    create, add, restrict = 444, 445, 446
    version = libc.syscall(create, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return False
    file_rights = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)  # how many bits this version has
    every, read, write = (1 << file_rights) - 1, 0b1100, (1 << file_rights) - 2
    no_network, no_signals = (0b11 if version >= 4 else 0), (0b11 if version >= 6 else 0)
    sizes = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("<QQQ", every, no_network, no_signals)
    ruleset = libc.syscall(create, attributes, ctypes.c_size_t(sizes), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    single = 0b110 | (1 << 14 if file_rights > 14 else 0)  # read, write, truncate one file
    secret = [os.path.realpath(folder) for folder in hidden]
    readable, listable = readable_parts(readable_roots(scratch), secret)
    rules = [*((path, read) for path in readable), *((path, 0b1000) for path in listable)]
    for path, rights in [*rules, (scratch, write), ("/dev/null", single)]:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # not for this user
            continue
        if not os.path.isdir(path):
            rights &= single
        if not rights & every:
            os.close(opened)
            continue
        rule = struct.pack("<Qi", rights & every, opened)
        failed = libc.syscall(add, ruleset, 1, rule, ctypes.c_uint32(0))
        os.close(opened)
        if failed:
            return False
    no_new_privileges, zero = 38, ctypes.c_ulong(0)
    libc.prctl(no_new_privileges, ctypes.c_ulong(1), zero, zero, zero)
    done = libc.syscall(restrict, ruleset, ctypes.c_uint32(0)) == 0
    os.close(ruleset)
    return done


def drop_root() -> None:  # pragma: no cover
    """Become `nobody`, for good (the parent has made sure that nobody can read the packages)."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


_FORBIDDEN = (
    "subprocess.", "os.system", "os.exec", "os.fork", "os.forkpty", "os.spawn", "os.posix_spawn",
    "os.startfile", "pty.spawn", "socket.", "os.kill", "os.killpg", "signal.pthread_kill",
    "winreg.", "webbrowser.", "ftplib.", "smtplib.", "syslog.",
)  # fmt: skip
# event -> which of its arguments are paths, and where the matching dir_fd stands
_CHANGES = {
    "os.remove": ((0, 1),), "os.rmdir": ((0, 1),), "os.mkdir": ((0, 2),), "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),), "os.utime": ((0, 3),), "os.truncate": ((0, None),),
    "os.rename": ((0, 2), (1, 3)), "os.link": ((0, 2), (1, 3)), "os.symlink": ((1, 2),),
    "os.setxattr": ((0, None),), "os.removexattr": ((0, None),), "os.chflags": ((0, None),),
    "os.lchmod": ((0, None),), "os.mkfifo": ((0, 2),), "os.mknod": ((0, 3),),
    "shutil.rmtree": ((0, None),), "shutil.move": ((0, None), (1, None)),
}  # fmt: skip


def install_audit_hook(  # pragma: no cover
    scratch: str, hidden: list[str], kernel: bool = False
) -> list[bool]:
    """Refuse, in Python, file changes outside the scratch folder, processes, sockets, signals.

    Args:
        scratch: the folder where everything is allowed.
        hidden: folders that may not even be read (the other students' submissions).
        kernel: the kernel forbids the same already, so that ctypes, the way around this hook, may
            stay (some libraries load it late).

    Returns:
        a list: while something is in it, the hook lets everything pass.
    """
    # everything the hook uses is bound here: the student may replace what the modules hold
    realpath, join, normcase, sep = os.path.realpath, os.path.join, os.path.normcase, os.sep
    fsdecode, readlink, isdir = os.fsdecode, getattr(os, "readlink", None), os.path.isdir
    scratch = normcase(realpath(scratch))
    secret = [normcase(realpath(folder)) for folder in hidden]
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    forbidden = _FORBIDDEN if kernel else (*_FORBIDDEN, "ctypes.")
    changes, refuse = _CHANGES, PermissionError
    null, pause = os.devnull, list[bool]()

    def inside(path: str, folders: list[str]) -> bool:
        return any(path == f or path.startswith(f.rstrip(sep) + sep) for f in folders)

    allowed = [r for r in map(normcase, readable_roots(scratch)) if inside(r, secret)]

    def place(path: Any, folder: Any = None) -> str:
        if isinstance(folder, int) and folder not in (-1, -100) and readlink is not None:
            return realpath(join(readlink(f"/proc/self/fd/{folder}"), fsdecode(path)))
        return normcase(realpath(fsdecode(path)))

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if pause:
            return
        if event == "open":
            path, mode, flags = args
            if isinstance(path, int) or path is None:
                return
            where = place(path)
            writes = bool(flags & writing) if isinstance(flags, int) else False
            if isinstance(mode, str) and any(c in mode for c in "wax+"):
                writes = True
            if writes and null not in (where, path) and not inside(where, [scratch]):
                raise refuse(f"answers may not write files outside their scratch folder: {path}")
            if inside(where, secret) and not inside(where, allowed):
                raise refuse(f"answers may not read this file: {path}")
            if mode is None and not inside(where, [scratch]) and isdir(where):
                raise refuse("answers may not open folders")  # the way around: dir_fd=
            return
        if event in changes:
            for position, folder in changes[event]:
                at = args[folder] if folder is not None and folder < len(args) else None
                if isinstance(args[position], int) or not inside(
                    place(args[position], at), [scratch]
                ):
                    raise refuse("answers may not change files outside their scratch folder")
            return
        if event.startswith(forbidden):
            raise refuse(f"answers may not start processes, open sockets or load code ({event})")

    sys.addaudithook(hook)
    return pause


# ---------------------------------------------------------------------------------- the loop


def _take_streams() -> tuple[BinaryIO, BinaryIO]:  # pragma: no cover
    """Move requests and replies off descriptors 0 and 1: prints must not reach the replies."""
    requests, replies = os.dup(0), os.dup(1)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(requests, os.O_BINARY)
        msvcrt.setmode(replies, os.O_BINARY)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(replies, "wb")


def main() -> None:  # pragma: no cover
    """Serve one function until the requests end."""
    requests, replies = _take_streams()
    _, first = read_frame(requests)
    task = codec.loads(first)
    for name in task["preload"]:
        with contextlib.suppress(Exception):
            import_module(name)
    for name in task["without"]:
        for known in [name, *(m for m in sys.modules if m.startswith(f"{name}."))]:
            sys.modules[known] = None  # type: ignore[assignment]  # so it cannot be imported
    scratch = os.path.realpath(os.getcwd())
    if task["drop_root"]:
        drop_root()  # a process that cannot must end here
    locked = False
    with contextlib.suppress(OSError, AttributeError):
        locked = task["landlock"] and confine_with_landlock(scratch, task["hidden"])
    limit_resources(task["memory_mb"], task["timeout"])
    pause = install_audit_hook(scratch, task["hidden"], kernel=locked)
    write_frame(replies, 0, codec.dumps({"ready": True, "landlock": locked}))

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{task['name']} is not a function")

    function: Callable[..., Any] = broken
    failure = None
    try:
        pieces = [Piece(cell, source, tuple(indices)) for cell, source, indices in task["pieces"]]
        loaded = load_function(pieces, task["name"], task["flags"])
        function = loaded if callable(loaded) else broken
    except BaseException as error:
        failure = codec.dumps({"error": describe(error)})
    while True:
        try:
            number, request = read_frame(requests)
        except EOFError:
            return
        if not locked:  # arguments may need libraries that load late, and these load with ctypes
            pause.append(True)
            codec.loads(request)
            pause.clear()
        reply = failure if failure is not None else serve(function, request, task["without"])
        write_frame(replies, number, reply)


if __name__ == "__main__":
    main()
