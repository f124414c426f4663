"""Execute notebooks and store them so that executing them again changes no byte.

`execute` runs a notebook in a fresh kernel of this very Python and names the cell that failed or
hung. `normalise` removes what differs from one execution to the next. `build` does both and
replaces the file in one step, so that a killed build leaves the old notebook whole.
"""

import json
import math
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

import irlbook
from irlbook.errors import CellFailedError, CellTimeoutError, MissingDependencyError, NotebookError
from irlbook.profiles import whole_paths

__all__ = [
    "COST",
    "Execution",
    "HIDDEN",
    "MEGABYTES_LADDER",
    "Progress",
    "REFERENCES",
    "SECONDS_LADDER",
    "WIDGET_VIEW",
    "at",
    "build",
    "execute",
    "first_line",
    "moved",
    "name_of_cell",
    "need_jupyter",
    "normalise",
    "read",
    "record_cost",
    "rung",
    "title",
    "usable_cores",
    "write",
    "write_atomically",
]

Progress = Callable[[int, int, str], None]
"""Called with (cells done, cells in all, first line of the cell that starts now)."""

SECONDS_LADDER = (10, 20, 30, 45, 60, 90, 120, 180, 240, 300, 360)
MEGABYTES_LADDER = (256, 512, 768, 1024, 1536, 2048)
REFERENCES = re.compile(r"^#+ .*\bReferences\b.*$", re.MULTILINE)
"""The heading above the list of references."""

HIDDEN = "hide-input"
"""The tag of a cell whose code is folded on the website; the build has JupyterLab fold it too."""

COST = re.compile(r"(<!-- cost -->)(.*?)(<!-- /cost -->)", re.DOTALL)

_FILE_LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_NOTEBOOK_METADATA = {"kernelspec", "language_info", "irlbook"}
_CELL_METADATA_OF_EDITORS = {
    *("ExecuteTime", "collapsed", "colab", "execution", "id", "jupyter", "lines_to_next_cell"),
    *("outputId", "papermill", "pycharm", "scrolled", "trusted", "vscode"),
}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


# Reading and writing ------------------------------------------------------------------------------


def read(path: Path | str) -> NotebookNode:
    """Read a notebook, and say what is wrong with a file that is none.

    Raises:
        NotebookError: missing, not JSON, not a notebook, an old format, or not for Python.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise NotebookError(f"{path}: cannot be read ({error.strerror}); check the name") from error
    except UnicodeDecodeError as error:
        raise NotebookError(f"{path}: not text, so no notebook; save it again as .ipynb") from error
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise NotebookError(
            f"{path}: damaged, it is not JSON ({error}); restore it or download it again"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise NotebookError(
            f"{path}: not a Jupyter notebook of format 4 (it has no list of cells); "
            "open it in JupyterLab and save it as .ipynb"
        )
    content.setdefault("metadata", {})
    try:
        language = content["metadata"].get("kernelspec", {}).get("language", "python")
        if language.lower() != "python":
            raise ValueError(f"it is for {language}, the book runs Python only")
        if content.get("nbformat") != 4:
            raise ValueError(f"format {content.get('nbformat')!r} instead of 4")
        content["nbformat_minor"] = max(5, content.get("nbformat_minor", 0))
        for index, cell in enumerate(content["cells"]):
            cell.setdefault("id", f"c-{index:03d}")
        notebook = nbformat.from_dict(content)
        for cell in notebook.cells:
            for part in [cell, *cell.get("outputs", [])]:
                _join_lines(part)
        nbformat.validate(notebook)
    except (nbformat.ValidationError, ValueError, TypeError, AttributeError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotebookError(
            f"{path}: not a valid notebook ({reason}); open it in JupyterLab and save it again"
        ) from error
    return notebook


def _join_lines(part: dict[str, Any]) -> None:
    """Join the texts of a cell or an output that the file stores as lists of lines."""
    for key in ("source", "text"):
        if isinstance(part.get(key), list):
            part[key] = "".join(part[key])
    for mime, value in part.get("data", {}).items():
        if isinstance(value, list) and not mime.endswith("json"):
            part["data"][mime] = "".join(value)


def write_atomically(path: Path | str, content: str | bytes) -> None:
    """Write a file in one step: a reader sees the old file or the new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
        os.chmod(temporary, path.stat().st_mode if path.exists() else 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write(notebook: NotebookNode, path: Path | str) -> None:
    """Write a notebook in one step."""
    write_atomically(path, nbformat.writes(notebook).rstrip("\n") + "\n")


def moved(notebook: NotebookNode, source: Path, target: Path) -> NotebookNode:
    """A copy for another folder, whose links to files of its old folder still lead there.

    Args:
        source: the folder that the notebook's relative links start from.
        target: the folder that the copy is for. Where it holds the page of a linked notebook, the
            link leads to this page.
    """

    def lead(found: re.Match[str]) -> str:
        file = source / found[2]
        page = target / f"{file.stem}.html"
        if not file.is_file():
            return found[0]
        if file.suffix == ".ipynb" and page.is_file():
            return f"{found[1]}{page.name}{found[3]}"
        try:
            path = Path(os.path.relpath(file.resolve(), target.resolve())).as_posix()
        except ValueError:  # another drive of Windows
            path = file.resolve().as_uri()
        return f"{found[1]}{path.replace(' ', '%20')}{found[3]}"

    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _FILE_LINK.sub(lead, cell.source)
    return notebook


def title(notebook: NotebookNode) -> str:
    """The first heading of a notebook, or an empty string."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found = re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE)
            if found:
                return found.group(1).strip()
    return ""


def name_of_cell(notebook: NotebookNode, index: int) -> str:
    """How messages call a cell: its place, counted from 1, and its first line."""
    return f"cell {index + 1} of {len(notebook.cells)} ({first_line(notebook.cells[index])})"


def at(index: int, cell: NotebookNode) -> str:
    """What a message calls a cell: its place, counted from 1, and its first line."""
    return f"cell {index + 1} ({first_line(cell)})"


def first_line(cell: NotebookNode) -> str:
    """The first line of a cell that is not blank, shortened."""
    line = next((line.strip() for line in cell.source.splitlines() if line.strip()), "")
    return line if len(line) <= 60 else line[:57] + "..."


# Executing ----------------------------------------------------------------------------------------


@dataclass
class Execution:
    """A notebook that was executed, and what that took.

    Attributes:
        notebook: with its outputs.
        seconds: wall clock, from the start of the kernel to the end of the last cell.
        megabytes: the most memory that the kernel and its children held (resident set).
        failed: of an execution that keeps going, each cell that raised an error, and the error.
    """

    notebook: NotebookNode
    seconds: float
    megabytes: float
    failed: tuple[str, ...] = ()


def execute(
    path: Path | str,
    out: Path | str | None = None,
    timeout: float | None = 300,
    progress: Progress | None = None,
    *,
    first: str = "",
    env: Mapping[str, str] | None = None,
    keep_going: bool = False,
) -> Execution:
    """Execute a notebook in a fresh kernel, in its own folder.

    Args:
        path: the notebook; it is not changed.
        out: where to keep the executed copy. It is written after every cell, so whatever stops
            the execution, what was executed so far is there.
        timeout: seconds that one cell may take; None for no limit.
        progress: called before each code cell and once at the end.
        first: a line of Python that the kernel runs as it starts; an error in it is only logged.
        env: variables of the kernel, besides those of this process; paths in the latter are seen
            from the current folder.
        keep_going: whether the cells after one that raised an error are executed, too.

    Raises:
        NotebookError: the file is not a notebook.
        CellFailedError: a cell raised an error and `keep_going` is not set, or the kernel died.
        CellTimeoutError: a cell ran past `timeout`.
        MissingDependencyError: the extra `lab` is not installed.
    """
    need_jupyter("ipykernel", "nbclient")
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError
    from nbclient.exceptions import CellTimeoutError as ClientTimeoutError

    path = Path(path)
    notebook = read(path)
    codes = [i for i, c in enumerate(notebook.cells) if c.cell_type == "code" and c.source.strip()]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(kernel_spec_manager=_this_python(first)),
        timeout=timeout,
        shutdown_kernel="immediate",
        record_timing=False,
    )
    variables = {"OMP_NUM_THREADS": "1", **whole_paths(os.environ), **(env or {})}
    failed: list[str] = []
    started = time.perf_counter()
    with client.setup_kernel(cleanup_kc=True, cwd=str(path.resolve().parent), env=variables):
        kernel: Any = client.km
        with _peak_memory(kernel.provisioner.pid) as memory:
            for done, index in enumerate(codes):
                cell = notebook.cells[index]
                if progress:
                    progress(done, len(codes), first_line(cell))
                where = f"{path.name}: {name_of_cell(notebook, index)}"
                try:
                    client.execute_cell(cell, index)
                except CellExecutionError as error:
                    why = f"{error.ename}: {_ANSI.sub('', error.evalue)}"
                    if not keep_going:
                        raise CellFailedError(f"{where} failed: {why}") from error
                    failed.append(f"{name_of_cell(notebook, index)}: {why}")
                except ClientTimeoutError as error:
                    raise CellTimeoutError(
                        f"{where} did not end within {timeout:g} s; "
                        "if your computer is slow give more time with --timeout"
                    ) from error
                except DeadKernelError as error:
                    raise CellFailedError(
                        f"{where}: the kernel died; the usual cause is too little memory "
                        f"(it held {memory[0]:.0f} MB)"
                    ) from error
                finally:
                    if out is not None:
                        write(notebook, out)
        seconds = time.perf_counter() - started
    if progress:
        progress(len(codes), len(codes), "")
    if out is not None:
        write(notebook, out)
    return Execution(notebook, seconds, memory[0], tuple(failed))


def need_jupyter(*packages: str) -> None:
    """Raise MissingDependencyError, which names the extra, unless these packages are there."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingDependencyError(
            f"running notebooks needs {' and '.join(missing)}, which is not installed here. "
            'Run: pip install "irlbook[lab]"'
        )


def _this_python(first: str = "") -> Any:
    """A list of kernels that holds one: the Python that runs now, whatever else is installed."""
    from ipykernel.kernelspec import make_ipkernel_cmd
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    class ThisPython(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            options = ["--log-level=ERROR"] + [f"--IPKernelApp.exec_lines={first}"] * bool(first)
            command = make_ipkernel_cmd(executable=sys.executable, extra_arguments=options)
            return KernelSpec(argv=command, language="python")

    return ThisPython()


@contextmanager
def _peak_memory(pid: int, interval: float = 0.1) -> Iterator[list[float]]:
    """Watch a process and its children; the list yielded holds the most megabytes seen so far."""
    import psutil

    peak = [0.0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(interval):
            resident = 0
            try:
                root = psutil.Process(pid)
                for process in [root, *root.children(recursive=True)]:
                    resident += process.memory_info().rss
            except psutil.Error:
                pass  # it ended between two looks
            peak[0] = max(peak[0], resident / 2**20)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


# Normalising --------------------------------------------------------------------------------------


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Remove what differs between two executions, in place, and record the version of the book.

    Cell ids become places; metadata of editors, timings, widgets and kernels go; output that came
    in pieces is joined; a cell tagged `hide-input` is folded in JupyterLab, too. Doing it twice is
    doing it once.
    """
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    kept = {key: value for key, value in notebook.metadata.items() if key in _NOTEBOOK_METADATA}
    notebook.metadata = nbformat.from_dict(kept)
    notebook.metadata.kernelspec = nbformat.from_dict(
        {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    )
    notebook.metadata.language_info = nbformat.from_dict({"name": "python"})
    notebook.metadata.setdefault("irlbook", NotebookNode()).version = irlbook.__version__
    for index, cell in enumerate(notebook.cells):
        cell.id = f"c-{index:03d}"
        cell.source = cell.source.rstrip()
        for key in _CELL_METADATA_OF_EDITORS & set(cell.metadata):
            del cell.metadata[key]
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            if HIDDEN in cell.metadata.get("tags", []):
                cell.metadata["jupyter"] = nbformat.from_dict({"source_hidden": True})
            cell.outputs = _normalise_outputs(cell)
    return notebook


def _normalise_outputs(cell: NotebookNode) -> list[NotebookNode]:
    outputs: list[NotebookNode] = []
    for output in cell.outputs:
        if WIDGET_VIEW in output.get("data", {}):
            continue  # a live widget cannot be stored; its static twin follows
        if output.output_type == "stream" and outputs:
            last = outputs[-1]
            if last.output_type == "stream" and last.name == output.name:
                last.text += output.text
                continue
        if output.output_type == "execute_result":
            output.execution_count = cell.execution_count
        if "transient" in output:
            del output["transient"]
        outputs.append(output)
    return outputs


# The cost of a chapter ----------------------------------------------------------------------------


def rung(value: float, ladder: tuple[int, ...], recorded: int | None = None) -> int:
    """The bound of a ladder that a measured value stays under, with a tenth to spare.

    A bound already recorded is kept while it holds and is at most one rung too high: a value
    that wavers about a rung must not change the notebook at every execution.
    """

    def bound(target: float) -> int:
        fitting = [step for step in ladder if step >= target]
        return fitting[0] if fitting else math.ceil(target / ladder[-1]) * ladder[-1]

    fresh = bound(1.1 * value)
    if recorded is not None and value < recorded <= bound(fresh + 1):
        return recorded
    return fresh


def record_cost(notebook: NotebookNode, seconds: float, megabytes: float) -> None:
    """Write run time and memory into the metadata and between the cost marks of the first cell."""
    book = notebook.metadata.setdefault("irlbook", NotebookNode())
    old = book.get("cost", {})
    cost = {
        "seconds_below": rung(seconds, SECONDS_LADDER, old.get("seconds_below")),
        "megabytes_below": rung(megabytes, MEGABYTES_LADDER, old.get("megabytes_below")),
    }
    book.cost = nbformat.from_dict(cost)
    cores = usable_cores()
    text = (
        f"Runs in under {cost['seconds_below']} s with under {cost['megabytes_below']} MB of "
        f"memory on {cores} CPU core{'s' if cores > 1 else ''}."
    )
    for cell in notebook.cells[:1]:
        if cell.cell_type == "markdown":
            cell.source = COST.sub(rf"\g<1>{text}\g<3>", cell.source)


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def build(
    paths: Iterable[Path | str],
    timeout: float | None = 300,
    progress: Callable[[Path], Progress] | None = None,
) -> list[Path]:
    """Execute notebooks, normalise them and replace them in place, each in one step.

    Args:
        paths: the notebooks. One that fails stays as it was, and stops the build.
        timeout: seconds that one cell may take.
        progress: gives the progress callback of each notebook.

    Returns:
        The paths whose bytes changed.

    Raises:
        NotebookError, CellFailedError, CellTimeoutError: as in `execute`.
    """
    changed = []
    for path in map(Path, paths):
        before = path.read_bytes() if path.exists() else b""
        done = execute(path, timeout=timeout, progress=progress(path) if progress else None)
        record_cost(done.notebook, done.seconds, done.megabytes)
        write(normalise(done.notebook), path)
        if path.read_bytes() != before:
            changed.append(path)
    return changed
