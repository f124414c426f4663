"""Functions taken from a notebook by name, without running the notebook.

The rule: of all code cells, only top-level imports, function and class definitions and assignments
of simple constants count (numbers, text, names, arithmetic, containers, comprehensions, lambdas,
and what `len`, `np.array` and their like make of these), also within `try`; of those, only what the
wanted function needs, directly or through others, is run, from top to bottom. Demo cells, plots,
magics and everything else are ignored, and so is all cell metadata. Parsing runs no code, and its
work grows with the size of the notebook, not with its square.
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import json
import re
import symtable
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from irlbook.errors import CheckFailed, NotebookError
from irlbook.exercises.answers import Piece

__all__ = [
    "MAX_CELLS",
    "MAX_CODE",
    "MAX_NOTEBOOK",
    "NotebookCode",
    "parse_cells",
    "parse_notebook",
    "read_notebook",
]

MAX_NOTEBOOK = 32 * 2**20
MAX_CODE = 2**20

MAX_CELLS = 20_000

# a line of IPython's own: %magic, !command, ?help, help?, and x = %magic or x = !command
_MAGIC = re.compile(r"%{1,2}\w|!+\s*\w|\?{1,2}[\w.]|[\w.]+\?{1,2}\s*$|[\w.,\s]+=\s*(%\w|!\s*\w)")
_RUN_IN_PLACE = {"time", "capture", "prun"}  # cell magics whose cell is run as it stands
_SIMPLE = (
    ast.Constant | ast.Name | ast.Attribute | ast.UnaryOp | ast.BinOp | ast.Tuple | ast.List
    | ast.Dict | ast.Set | ast.operator | ast.unaryop | ast.expr_context | ast.Subscript
    | ast.Slice | ast.Compare | ast.cmpop | ast.BoolOp | ast.boolop | ast.IfExp | ast.Starred
    | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.comprehension
    | ast.JoinedStr | ast.FormattedValue | ast.keyword
)  # fmt: skip
_SCOPES = (
    ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
)  # fmt: skip
_FUNCTIONS = set(
    "abs bool complex dict divmod enumerate float frozenset int len list max min namedtuple "
    "partial pow range reversed round set slice sorted str sum tuple zip".split()
)
_MODULES = set("np numpy math torch scipy functools itertools collections operator".split())
_FILES = ("load", "save", "fromfile", "genfromtxt", "memmap", "open")


@dataclass
class _Statement:
    cell: int
    index: int
    binds: set[str]
    uses: set[str]
    defines: bool = False
    stub: bool = False


@dataclass
class NotebookCode:
    """The code cells of a notebook, parsed.

    Attributes:
        sources: cell number (counted from 1 over all cells) -> source.
        broken: cell number -> why it cannot be parsed, or is not run.
    """

    sources: dict[int, str] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)
    _statements: list[_Statement] = field(default_factory=list)
    flags: int = 0

    def cells_defining(self, name: str) -> list[int]:
        """The numbers of the cells that define the function, one for each definition.

        The untouched stub of the task is none where there is another.
        """
        found = [s for s in self._statements if s.defines and name in s.binds]
        written = [s for s in found if not s.stub]
        return [s.cell for s in written or found]

    def pieces(self, name: str) -> list[Piece]:
        """What must be run to have the function.

        Raises:
            CheckFailed: it is missing, defined more than once, or its cell does not parse.
        """
        cells = self.cells_defining(name)
        if len(cells) > 1:
            first = ", ".join(f"cell {c}" for c in cells[:-1][:8])
            places = f"{first} and cell {cells[-1]}"
            raise CheckFailed(
                f"`{name}` is defined once",
                "delete or rename all definitions but the one that counts",
                detail=f"it is defined in {places}",
            )
        if not cells:
            definition = re.compile(
                rf"^[ \t]*(async[ \t]+)?(def|class)[ \t]+{name}\b|^{name}[ \t]*=", re.M
            )
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
        written = {n for s in self._statements if s.defines and not s.stub for n in s.binds}
        binding: dict[str, list[int]] = {}
        for i, statement in enumerate(self._statements):
            if not (statement.stub and statement.binds <= written):
                for bound in statement.binds:
                    binding.setdefault(bound, []).append(i)
        kept: set[int] = set()
        seen, wanted = {name, "*"}, [name, "*"]
        while wanted:
            for i in binding.get(wanted.pop(), ()):
                if i not in kept:
                    kept.add(i)
                    new = self._statements[i].uses - seen
                    seen |= new
                    wanted += new
        by_cell: dict[int, list[int]] = {}
        for i in sorted(kept):
            by_cell.setdefault(self._statements[i].cell, []).append(self._statements[i].index)
        return [Piece(c, self.sources[c], tuple(ix)) for c, ix in by_cell.items()]


def _simple(value: ast.expr) -> bool:
    """Whether an expression is a constant or made of constants, by functions known to be quick."""
    stack: list[ast.AST] = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, ast.Call) and _quick(node.func):
            stack += [*node.args, *node.keywords]
            if isinstance(node.func, ast.Attribute):
                stack.append(node.func.value)
            continue
        if not isinstance(node, _SIMPLE):
            return False
        stack.extend(ast.iter_child_nodes(node))
    return True


def _quick(function: ast.expr) -> bool:
    """`len`, `np.array`, `np.arange(6).reshape` and their like."""
    if isinstance(function, ast.Name):
        return function.id in _FUNCTIONS
    if not isinstance(function, ast.Attribute) or function.attr.startswith(_FILES):
        return False
    node: ast.expr = function
    while isinstance(node, (ast.Attribute, ast.Call, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id in _MODULES)


def _names(*targets: ast.expr) -> set[str]:
    return {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}


def _binds(node: ast.stmt) -> tuple[set[str], bool]:
    """The names that a statement binds (empty: it is ignored), and whether it defines functions."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}, True
    if isinstance(node, ast.Import):
        return {(a.asname or a.name).split(".")[0] for a in node.names}, False
    if isinstance(node, ast.ImportFrom):
        return {a.asname or a.name for a in node.names}, False
    if isinstance(node, ast.Assign) and _simple(node.value):
        return _names(*node.targets), _is_function(node.value)
    if isinstance(node, ast.AugAssign) and _simple(node.value):
        return _names(node.target), False
    if isinstance(node, ast.AnnAssign) and node.value is not None and _simple(node.value):
        return _names(node.target), _is_function(node.value)
    if isinstance(node, ast.Try):
        return _binds_within(node)
    return set(), False


def _is_function(value: ast.expr) -> bool:
    """Whether an assignment may define a function: a lambda, another name, a partial."""
    if isinstance(value, ast.Call):
        name = value.func.attr if isinstance(value.func, ast.Attribute) else ""
        return name in ("partial", "vectorize") or _names(value.func) == {"partial"}
    return isinstance(value, (ast.Lambda, ast.Name, ast.Attribute))


def _binds_within(node: ast.Try) -> tuple[set[str], bool]:
    """What `try` binds; nothing when it does anything but bind."""
    handlers = [handler.body for handler in node.handlers]
    blocks = [node.body, node.orelse, node.finalbody, *handlers]
    binds, defines = set[str](), False
    for statement in (s for block in blocks for s in block):
        new, defining = _binds(statement)
        if not new and not isinstance(statement, (ast.Pass, ast.Raise)):
            return set(), False
        binds, defines = binds | new, defines or defining
    return binds, defines


def _is_stub(node: ast.stmt) -> bool:
    """Whether it is a function that does nothing but raise NotImplementedError."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    body = [
        s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
    ]
    if len(body) != 1 or not isinstance(body[0], ast.Raise) or body[0].exc is None:
        return False
    return "NotImplementedError" in _names(body[0].exc)


def _uses(
    node: ast.stmt, lines: list[str], known: dict[tuple[int, int], set[str] | None]
) -> set[str]:
    """The global names that a statement may ask for: not the local names of its functions.

    Args:
        lines: the lines of its cell.
        known: what was found for a range of lines, for statements that share one.
    """
    if any(isinstance(part, _SCOPES) for part in ast.walk(node)):
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(d.lineno for d in decorators)])
        place = (first, node.end_lineno or first)
        if place not in known:
            known[place] = None
            source = "\n".join(lines[first - 1 : place[1]])
            # a part that cannot be read alone (it begins within a line) is taken name by name
            with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
                known[place] = _globals(symtable.symtable(source, "cell", "exec"))
        if (found := known[place]) is not None:
            return found
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _globals(table: symtable.SymbolTable) -> set[str]:
    at_top = table.get_type() == "module"
    found = {
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (at_top or symbol.is_global())
    }
    return found.union(*map(_globals, table.get_children()))


def _parse(source: str) -> tuple[ast.Module, str]:
    """Parse a cell; magics give way to `pass` when they keep it from parsing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source), source
        except SyntaxError as error:
            lines = source.split("\n")
            for number, line in enumerate(lines):
                text = line.lstrip()
                if _MAGIC.match(text):
                    lines[number] = line[: len(line) - len(text)] + "pass"
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
        code.sources[number] = source
        if magic := re.match(r"\s*%%(\w*)[^\n]*", source):
            if magic[1] not in _RUN_IN_PLACE:
                code.broken[number] = f"it begins with %%{magic[1]} and is not run"
                continue
            source = "\n" * magic[0].count("\n") + source[magic.end() :]
        try:
            tree, code.sources[number] = _parse(source)
        except SyntaxError as error:
            code.broken[number] = f"line {error.lineno}: {error.msg}"
            continue
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            code.broken[number] = f"Python cannot read it ({type(error).__name__})"
            continue
        lines = code.sources[number].split("\n")
        known: dict[tuple[int, int], set[str] | None] = {}
        for index, node in enumerate(tree.body):
            binds, defines = _binds(node)
            stub = _is_stub(node)
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                for name in binds:
                    code.flags |= getattr(getattr(__future__, name, 0), "compiler_flag", 0)
                continue
            if binds:
                uses = _uses(node, lines, known)
                code._statements.append(_Statement(number, index, binds, uses, defines, stub))
    return code


def _without_outputs(text: str) -> str:
    """A notebook's JSON without what its cells showed: much to validate, and nothing to grade."""
    data = json.loads(text)
    sheets = [data, *data.get("worksheets", [])]  # nbformat 3 had sheets
    for cell in (cell for sheet in sheets for cell in sheet.get("cells", [])):
        if "outputs" in cell:
            cell["outputs"] = []
        cell.pop("attachments", None)
    return json.dumps(data)


def read_notebook(path: Path | str, *, outputs: bool = True) -> nbformat.NotebookNode:
    """Read a notebook that may be anything at all; without its outputs where they do not matter.

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
            text = path.read_bytes().decode("utf-8-sig")
            if text.count('"cell_type"') > MAX_CELLS:
                raise NotebookError(f"the notebook holds more than {MAX_CELLS} cells")
            notebook = nbformat.reads(text if outputs else _without_outputs(text), as_version=4)
        cells = notebook.cells
        for cell in cells:
            if isinstance(cell.source, list):
                cell.source = "".join(cell.source)
            if not isinstance(cell.source, str) or not isinstance(cell.cell_type, str):
                raise TypeError("source")
            if not isinstance(cell.get("metadata"), dict):
                cell.metadata = nbformat.from_dict({})
    except NotebookError:
        raise
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
