"""Functions taken from a notebook by name, without running the notebook.

The rule: of all code cells, only top-level imports, function and class definitions and assignments
of simple constants count (numbers, text, names, arithmetic and containers of these, lambdas); of
those, only what the wanted function needs, directly or through others, is run. Demo cells, plots,
magics and everything else are ignored, and so is all cell metadata. Parsing runs no code.
"""

from __future__ import annotations
import __future__

import ast
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from irlbook.errors import CheckFailed, NotebookError
from irlbook.exercises.answers import Piece

MAX_NOTEBOOK = 32 * 2**20
MAX_CODE = 2**20

_MAGIC = re.compile(r"^\s*(%|!|\?)|\?\s*$")
_SIMPLE = (
    ast.Constant | ast.Name | ast.Attribute | ast.UnaryOp | ast.BinOp | ast.Tuple | ast.List
) | (ast.Dict | ast.Set | ast.operator | ast.unaryop | ast.expr_context)


@dataclass
class _Statement:
    cell: int
    index: int
    binds: set[str]
    uses: set[str]
    defines: bool = False


@dataclass
class NotebookCode:
    """The code cells of a notebook, parsed.

    Attributes:
        sources: cell number (counted from 1 over all cells) -> source.
        broken: cell number -> why it cannot be parsed.
    """

    sources: dict[int, str] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)
    _statements: list[_Statement] = field(default_factory=list)
    flags: int = 0

    def cells_defining(self, name: str) -> list[int]:
        """The numbers of the cells that define the function, one for each definition."""
        return [s.cell for s in self._statements if s.defines and name in s.binds]

    def pieces(self, name: str) -> list[Piece]:
        """What must be run to have the function.

        Raises:
            CheckFailed: it is missing, defined more than once, or its cell does not parse.
        """
        cells = self.cells_defining(name)
        if len(cells) > 1:
            places = " and ".join([", ".join(f"cell {c}" for c in cells[:-1]), f"cell {cells[-1]}"])
            raise CheckFailed(
                f"`{name}` is defined once",
                "delete or rename all definitions but the one that counts",
                detail=f"it is defined in {places}",
            )
        if not cells:
            definition = re.compile(rf"^\s*(async\s+)?(def|class)\s+{name}\b|^{name}\s*=", re.M)
            for number, why in self.broken.items():
                if definition.search(self.sources[number]):
                    raise CheckFailed(
                        f"the cell that defines `{name}` can be read as Python",
                        "run the cell: Python points at the place",
                        detail=f"cell {number}: {why}",
                    )
            raise CheckFailed(
                f"the notebook defines `{name}`",
                f"keep the name of the function as the task gives it: `def {name}(...)`",
                detail="no code cell defines it",
            )
        wanted, kept = {name}, set()
        while True:
            new = {
                i
                for i, s in enumerate(self._statements)
                if i not in kept and (s.binds & wanted or "*" in s.binds)
            }
            if not new:
                break
            kept |= new
            wanted |= set().union(*(self._statements[i].uses for i in new))
        by_cell: dict[int, list[int]] = {}
        for i in sorted(kept):
            by_cell.setdefault(self._statements[i].cell, []).append(self._statements[i].index)
        return [Piece(c, self.sources[c], tuple(ix)) for c, ix in by_cell.items()]


def _simple(value: ast.expr) -> bool:
    stack: list[ast.AST] = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Lambda):
            continue
        if not isinstance(node, _SIMPLE):
            return False
        stack.extend(ast.iter_child_nodes(node))
    return True


def _binds(node: ast.stmt) -> tuple[set[str], bool]:
    """The names that a statement binds (empty: it is ignored), and whether it defines functions."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}, True
    if isinstance(node, ast.Import):
        return {(a.asname or a.name).split(".")[0] for a in node.names}, False
    if isinstance(node, ast.ImportFrom):
        return {a.asname or a.name for a in node.names}, False
    if isinstance(node, ast.Assign) and _simple(node.value):
        names = {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        return names, isinstance(node.value, ast.Lambda)
    if isinstance(node, ast.AnnAssign) and node.value is not None and _simple(node.value):
        name = {node.target.id} if isinstance(node.target, ast.Name) else set()
        return name, isinstance(node.value, ast.Lambda)
    return set(), False


def _parse(source: str) -> tuple[ast.Module, str]:
    """Parse a cell; magics are blanked out when they keep it from parsing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source), source
        except SyntaxError as error:
            lines = ["" if _MAGIC.search(line) else line for line in source.split("\n")]
            cleaned = "\n".join(lines)
            if cleaned == source:
                raise
            try:
                return ast.parse(cleaned), cleaned
            except SyntaxError:
                raise error from None


def parse_cells(cells: Iterable[tuple[int, str]]) -> NotebookCode:
    """Parse code cells given as (number, source); a cell that does not parse is put aside."""
    code = NotebookCode()
    for number, source in cells:
        if source.lstrip().startswith("%%"):
            continue
        code.sources[number] = source
        try:
            tree, code.sources[number] = _parse(source)
        except SyntaxError as error:
            code.broken[number] = f"line {error.lineno}: {error.msg}"
            continue
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            code.broken[number] = f"Python cannot read it ({type(error).__name__})"
            continue
        for index, node in enumerate(tree.body):
            binds, defines = _binds(node)
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                for name in binds:
                    code.flags |= getattr(getattr(__future__, name, 0), "compiler_flag", 0)
                continue
            if binds:
                uses = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                code._statements.append(_Statement(number, index, binds, uses, defines))
    return code


def read_notebook(path: Path | str) -> nbformat.NotebookNode:
    """Read a notebook that may be anything at all.

    Raises:
        NotebookError: it is not a plain file, too large, or not a notebook; the message says which.
    """
    path = Path(path)
    if path.is_symlink():
        raise NotebookError("the notebook is a symbolic link; hand in the file itself")
    if not path.is_file():
        raise NotebookError("the notebook is not a file")
    size = path.stat().st_size
    if size > MAX_NOTEBOOK:
        raise NotebookError(
            f"the notebook is too large ({size / 2**20:.0f} MB, at most {MAX_NOTEBOOK >> 20}); "
            "clear its outputs and save it again"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            notebook = nbformat.reads(path.read_bytes().decode("utf-8-sig"), as_version=4)
        cells = notebook.cells
        for cell in cells:
            if isinstance(cell.source, list):
                cell.source = "".join(cell.source)
            if not isinstance(cell.source, str) or not isinstance(cell.cell_type, str):
                raise TypeError("source")
            if not isinstance(cell.get("metadata"), dict):
                cell.metadata = nbformat.from_dict({})
    except Exception:
        raise NotebookError(
            "the notebook cannot be read: the file is damaged or no Jupyter notebook; "
            "open it in JupyterLab and save it again"
        ) from None
    return notebook


def parse_notebook(notebook: nbformat.NotebookNode) -> NotebookCode:
    """Parse the code cells of a notebook. Cells count from 1, text cells included."""
    cells = [
        (number, cell.source)
        for number, cell in enumerate(notebook.cells, start=1)
        if cell.cell_type == "code"
    ]
    if sum(len(source) for _, source in cells) > MAX_CODE:
        raise NotebookError("the notebook holds more than a million characters of code")
    return parse_cells(cells)
