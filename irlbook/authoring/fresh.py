"""Run a chapter again on draws that nobody has looked at, and see which learned claims hold.

The seeds of a chapter were looked at while it was written: what a sentence says can be true of them
and of no others. `redraw` gives every seed of a running kernel another stream, so that the same
cells train on other worlds, data and batches; no cell is changed. Each family of claims is then
tested anew and held against the text, and nothing is stopped by a claim that does not hold.

Runs that a chapter reads from a file are made again only if a folder is given for them: a chapter
that knows how makes its own there, and reads others that a study has left there, which

    python -m irlbook.authoring.fresh 1 irlbook.posttraining.hindsight_study \\
        --parts FOLDER/1/parts/hindsight --out FOLDER/1/hindsight.json

makes on the seeds of draw 1. Claims of other files come out with the same figures in every draw,
and `Redrawn.same` marks them; `Again.files` names the book's own files that were read.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import runpy
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irlbook import stats
from irlbook.authoring.notebooks import Progress, execute, write_atomically
from irlbook.claims import ON_SOME, Claims, Said, Side
from irlbook.errors import (
    ClaimFailed,
    DataNotFoundError,
    InvalidHyperparameterError,
    as_command,
)
from irlbook.posttraining.stored_runs import MAKING, REMADE, RESULTS

__all__ = [
    "Again",
    "Redrawn",
    "SINK",
    "WORDS",
    "chapter_again",
    "main",
    "redraw",
    "report_only",
    "write_table",
]

WORDS = ("holds", "direction only", "against", "newly established")
SINK = "IRLBOOK_FRESH_CLAIMS"  # where the kernel writes what it found, a line a claim


@dataclass(frozen=True)
class Redrawn:
    """One learned claim of the text and what other draws say of it.

    Attributes:
        name: the claim.
        said: what the text says of it.
        sides: of each draw, corrected for its family.
        means: of each draw, the effect.
    """

    name: str
    said: Said
    sides: tuple[Side, ...]
    means: tuple[float, ...]

    @property
    def same(self) -> bool | None:
        """Whether all draws give one and the same effect: it comes from a file, or is exact.

        None after one draw alone, which cannot tell.
        """
        return len(set(self.means)) == 1 if len(self.means) > 1 else None

    @property
    def words(self) -> tuple[str, ...]:
        """Of each draw: holds, direction only, against, or newly established."""
        return tuple(map(self._word, self.sides, self.means))

    def _word(self, side: Side, mean: float) -> str:
        if self.said == "not established":
            return "holds" if side == self.said else "newly established"
        sign = -1 if self.said == "less" else 1
        if sign * mean <= 0:
            return "against"
        established = side == ("less" if sign < 0 else "greater")
        return "holds" if established or self.said == ON_SOME else "direction only"


def redraw(draw: int) -> None:
    """Give every seed of this process another stream.

    A seed that a cell sets, 3 say, becomes the pair (3, draw): the draws 1, 2, ... have nothing in
    common with each other or with the chapter's own. Generators that are handed on stay as they
    are.
    """
    import torch
    from gymnasium.utils import seeding

    generator, sequence, torch_seed = (
        np.random.default_rng,
        np.random.SeedSequence,
        torch.manual_seed,
    )

    def moved(seed: Any) -> Any:
        return [*np.ravel(seed).tolist(), 0xF5E5, draw]

    def default_rng(seed: Any = None) -> np.random.Generator:
        plain = seed is not None and not isinstance(
            seed, np.random.Generator | np.random.BitGenerator | sequence
        )
        return generator(moved(seed) if plain else seed)

    def seed_sequence(entropy: Any = None, **options: Any) -> np.random.SeedSequence:
        return sequence(entropy if entropy is None else moved(entropy), **options)

    def as_one_number(seed: int) -> int:
        return int(sequence([int(seed) % 2**64, 0xF5E5, draw]).generate_state(1, np.uint64)[0] >> 1)

    class Generator(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            return super().manual_seed(as_one_number(seed))

    def np_random(seed: int | None = None) -> tuple[np.random.Generator, Any]:
        return default_rng(seed), seed

    np.random.default_rng = default_rng
    np.random.SeedSequence = seed_sequence  # type: ignore[misc, assignment]
    torch.manual_seed = lambda seed: torch_seed(as_one_number(seed))
    torch.Generator = Generator  # type: ignore[misc]
    seeding.np_random = np_random


def report_only() -> None:
    """Let claims and verdicts write what they found to the file `SINK`, and stop nothing.

    A verdict speaks of the chapter's own world. If it fails in another one, the claims that come
    after it in its cell are tested all the same. Stored files of the book that are read from now
    on are written down, too.
    """
    verdict = stats.verdict

    def passed_over(claim: str, *figures: Any, **options: Any) -> None:
        try:
            verdict(claim, *figures, **options)
        except ClaimFailed as error:
            _write([{"verdict": f"{error}"}])

    stats.verdict = passed_over
    Claims.conclude = _report  # type: ignore[method-assign, assignment]
    Path(os.environ[SINK]).touch()
    sys.addaudithook(_tell_file)


def _tell_file(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and str(arguments[0]).endswith(".json"):
        path = Path(arguments[0])
        if path.parent == RESULTS:
            _write([{"file": path.name}])


def _write(rows: Iterable[Mapping[str, Any]]) -> None:
    with Path(os.environ[SINK]).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _report(claims: Claims, text: Mapping[str, Said]) -> None:
    """In the place of `Claims.conclude`: write each claim down and stop nothing."""
    sides = claims.sides()
    _write(
        {"name": c.name, "side": sides[c.name], "mean": c.mean, "said": text.get(c.name)}
        for c in claims.made
    )


@dataclass(frozen=True)
class Again:
    """What other draws made of a chapter.

    Attributes:
        claims: those that every draw reached.
        failed: cells that raised an error, "draw 1, cell 7 of 9 (x = 1): why".
        verdicts: those that did not hold, "draw 1: this does not hold here: ...".
        files: the stored files of the book that were read, since nothing took their places.
    """

    claims: tuple[Redrawn, ...]
    failed: tuple[str, ...]
    verdicts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def summary(self) -> str:
        """How many claims hold, of those that were drawn again."""
        drawn = [found for found in self.claims if not found.same]
        counts = Counter(word for found in drawn for word in found.words)
        told = ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
        if any(found.same is None for found in drawn):
            claims = f"{len(drawn)} claims, one draw: those of files are not told apart"
        else:
            claims = f"{len(drawn)} claims drawn again, {len(self.claims) - len(drawn)} from files"
        return (
            claims
            + (f"; of {sum(counts.values())} tests: {told}" if drawn else "")
            + (f"; {len(self.verdicts)} verdicts did not hold" if self.verdicts else "")
            + (f"; {len(self.failed)} cells failed" if self.failed else "")
            + (f"; the book's own files: {', '.join(self.files)}" if self.files else "")
        )


def chapter_again(
    path: Path,
    draws: Sequence[int] = (1, 2),
    timeout: float | None = None,
    progress: Progress | None = None,
    remade: Path | None = None,
) -> Again:
    """Execute a chapter once a draw and collect its learned claims.

    Cells that fail are passed over: a check of one particular world may well fail on another. A
    claim behind one may not have been reached, and is then left out.

    Args:
        path: the chapter.
        draws: positive numbers, each another set of seeds; two or more, because of one draw alone
            nobody could tell which claims come from files; one is taken if `remade` is given.
        timeout, progress: as of `irlbook.authoring.notebooks.execute`.
        remade: a folder of stored runs that are made again. Of draw 1, files of `remade / "1"` are
            read in the place of the book's, and runs that the chapter makes itself are kept there.

    Raises:
        InvalidHyperparameterError: fewer than two draws, and nothing is made again.
        DataNotFoundError: `remade` has a file for one draw that it lacks for another.
        NotebookError, CellTimeoutError: as `irlbook.authoring.notebooks.execute`.
    """
    if len(set(draws)) < (2 if remade is None else 1):
        raise InvalidHyperparameterError(
            f"draws are {list(draws)}: take two or more (--fresh 2), or nobody can tell which "
            "claims were drawn again and which come from files."
        )
    if remade is not None:
        _same_files([remade / str(draw) for draw in draws])
    rows: list[dict[str, dict[str, Any]]] = []
    failed, verdicts, files = [], [], set()
    with tempfile.TemporaryDirectory() as folder:
        for draw in draws:
            sink = Path(folder) / f"{draw}.jsonl"
            # A cache of its own: what was fine-tuned with the chapter's seeds must not be taken.
            env = {SINK: str(sink), "IRLBOOK_CACHE": str(Path(folder) / f"cache-{draw}")}
            if remade is not None:
                own = remade.resolve() / str(draw)
                env |= {REMADE: str(own), MAKING: str(own / "parts")}
            first = (
                f"from irlbook.authoring import fresh; fresh.redraw({draw}); fresh.report_only()"
            )
            done = execute(path, None, timeout, progress, first=first, env=env, keep_going=True)
            failed += [f"draw {draw}, {line}" for line in done.failed]
            lines = sink.read_text(encoding="utf-8").splitlines()  # made by `report_only`
            told = list(map(json.loads, lines))
            verdicts += [f"draw {draw}: {row['verdict']}" for row in told if "verdict" in row]
            files |= {row["file"] for row in told if "file" in row}
            rows.append({row["name"]: row for row in told if "name" in row})
    reached = [name for name in rows[0] if all(name in row for row in rows)]
    claims = (
        Redrawn(
            name,
            rows[0][name]["said"],
            tuple(row[name]["side"] for row in rows),
            tuple(row[name]["mean"] for row in rows),
        )
        for name in reached
    )
    return Again(tuple(claims), tuple(failed), tuple(verdicts), tuple(sorted(files)))


def _same_files(folders: Sequence[Path]) -> None:
    """Refuse a file that only some draws have: for the others the book's own would be read."""
    names = [{path.name for path in folder.glob("*.json")} for folder in folders]
    for folder, there in zip(folders, names, strict=True):
        if lacking := sorted(set().union(*names) - there):
            raise DataNotFoundError(
                f"{folder} has no {', '.join(lacking)}, and another draw has; make it for each "
                "draw or for none."
            )


def write_table(again: Again, path: Path) -> None:
    """Write one row a claim: what the text says, and for each draw the effect and what it says."""
    draws = len(again.claims[0].means) if again.claims else 0
    header = ["claim", "text", "drawn again"]
    header += [f"{what} {k + 1}" for k in range(draws) for what in ("effect", "draw")]
    with io.StringIO(newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        for c in again.claims:
            pairs = zip(c.means, c.words, strict=True)
            drawn = ["not known" if c.same is None else "no" if c.same else "yes"]
            writer.writerow(
                [c.name, c.said, *drawn, *(x for m, w in pairs for x in (f"{m:.4g}", w))]
            )
        write_atomically(path, text.getvalue())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a module as a command, with every seed of a draw."""
    parser = argparse.ArgumentParser(
        prog="python -m irlbook.authoring.fresh", description="Run a module on seeds of a draw."
    )
    parser.add_argument("draw", type=int, help="1, 2, ...: which other seeds")
    parser.add_argument("module", help="such as irlbook.posttraining.hindsight_study")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="those of the module")
    told = parser.parse_args(arguments)
    redraw(told.draw)
    sys.argv = [told.module, *told.arguments]
    runpy.run_module(told.module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(as_command(main))
