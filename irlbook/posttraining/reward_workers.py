"""A reward function, called here or in several processes. Quick to import: a worker needs no torch.

A reward that runs a program, asks a server or checks a proof is often slower than the model. It is
a function of texts, so nothing but texts has to travel.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import multiprocessing
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from irlbook.errors import InvalidHyperparameterError, RewardError, shown

__all__ = ["FileReward", "Reward", "call", "in_processes", "source_digest"]

Reward = Callable[[list[Any], list[str]], Sequence[float]]
"""(prompts, responses), as many of each, to a number each; higher is better."""

_reward: Reward  # of a worker


def call(reward: Reward, prompts: list[Any], responses: list[str]) -> np.ndarray:
    """What a reward gives, as an array of float64; whatever it raises names a prompt.

    Raises:
        RewardError.
    """
    try:
        given = reward(prompts, responses)
        if given is None:
            raise RewardError(
                f"the reward gave None for {len(responses)} responses (the first to "
                f"{prompts[0]!r}). Does the function end without a `return`?"
            )
        for i, value in enumerate(given if isinstance(given, list | tuple) else ()):
            if value is None:
                where = f" for the prompt {prompts[i]!r} and the response {responses[i]!r}"
                raise RewardError(
                    f"the reward gave None{where if i < len(prompts) else ''}. It must give a "
                    "number for any text that a model may write; is there a branch without one?"
                )
    except RewardError:
        raise  # it was named where it happened
    except Exception as error:
        where = _culprit(reward, prompts, responses)
        raise RewardError(
            f"the reward raised {type(error).__name__}: {error}; {where}. It must score any text "
            "that a model may write, also an empty one."
        ) from error
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # the last: a tensor with gradients
        raise RewardError(
            f"the reward gave {shown(given)} for {len(responses)} responses, which are no numbers "
            f"({error}). It gives one number a response: a list of floats, or an array."
        ) from error


@contextmanager
def in_processes(reward: Reward, workers: int) -> Iterator[Reward]:
    """The same reward, asked in several processes; they end with the `with` block.

        with in_processes(slow_reward, 8) as fast_reward:
            train_online(model, tokenizer, prompts, fast_reward, config)

    Responses are cut into one part a worker; the numbers come back in their order. A worker starts
    afresh (spawn), so `reward` must be picklable: a function at the top of a module, or an object
    of a class that is; not a lambda, nor a function of a notebook.

    Raises:
        RewardError: the reward cannot be sent; and in a call: it raised, or a worker died.
        InvalidHyperparameterError: no workers.
    """
    if workers < 1:
        raise InvalidHyperparameterError(f"workers is {workers}; at least 1.")
    try:
        pickle.dumps(reward)
    except Exception as error:
        raise RewardError(
            f"the reward cannot be sent to a worker ({error}). Define it at the top of a module, "
            "not as a lambda and not inside a function."
        ) from error
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _install, (reward,)
    ) as pool:

        def shared(prompts: list[str], responses: list[str]) -> list[float]:
            parts = [part for part in np.array_split(range(len(prompts)), workers) if len(part)]
            try:
                asked = [
                    pool.submit(_ask, [prompts[i] for i in part], [responses[i] for i in part])
                    for part in parts
                ]
                found = [future.result() for future in asked]
            except BrokenProcessPool as error:
                raise RewardError(
                    f"a reward worker died while {len(prompts)} responses were scored (the first "
                    f"to {prompts[0]!r}). Was it killed for memory, or did the reward end its "
                    "process? Or it could not start: the reward, and what it needs, must be "
                    "importable from a module, and a script that starts workers needs its "
                    "`if __name__ == '__main__':`."
                ) from error
            for part, values in zip(parts, found, strict=True):
                if values.shape != (len(part),):
                    raise RewardError(
                        f"the reward gave numbers of shape {values.shape} for {len(part)} "
                        f"responses (the first to {prompts[part[0]]!r}); it takes all prompts and "
                        "responses at once and gives one number a response."
                    )
            return np.concatenate(found).tolist()

        try:
            yield shared
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _install(reward: Reward) -> None:
    global _reward
    _reward = reward


def _ask(prompts: list[str], responses: list[str]) -> np.ndarray:
    return call(_reward, prompts, responses)


def _culprit(reward: Reward, prompts: Sequence[str], responses: Sequence[str]) -> str:
    """Ask again, one response at a time."""
    for prompt, response in zip(prompts, responses, strict=True):
        try:
            reward([prompt], [response])
        except Exception:
            return f"so it does for the prompt {prompt!r} and the response {response!r}"
    return f"not for any response alone, but for all {len(responses)} (first: {prompts[0]!r})"


class FileReward:
    """A function of a Python file as a reward. The file is run; it can be sent to a worker.

    Args:
        path: the file; it may import what lies beside it, also within its functions.
        name: the function (prompts, responses) in it.

    Raises:
        RewardError: no such file or function, or the file raised; says what is there.
    """

    def __init__(self, path: str | Path, name: str) -> None:
        self.path, self.name = Path(path).resolve(), name
        if not self.path.is_file():
            raise RewardError(
                f"there is no file {path}. Give FILE.py:FUNCTION, or the folder of a reward model."
            )
        own = f"reward_{hashlib.sha256(str(self.path).encode()).hexdigest()[:12]}"
        spec = importlib.util.spec_from_file_location(own, self.path)
        if spec is None or spec.loader is None:
            raise RewardError(f"{path} is no Python file. Give FILE.py:FUNCTION.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[own] = module  # dataclasses look their types up there
        self.neighbours: dict[str, ModuleType] = {}
        try:
            with self._beside():
                spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[own]
            raise RewardError(f"{path} raised {type(error).__name__}: {error}") from error
        self.function: Any = getattr(module, name, None)
        if not callable(self.function):
            known = vars(module).items()
            there = [key for key, value in known if callable(value) and key[0] != "_"]
            wrong = "is no function" if hasattr(module, name) else "does not exist"
            raise RewardError(
                f"{name!r} {wrong} in {path}. Its functions: {', '.join(sorted(there)) or 'none'}. "
                "A reward takes (prompts, responses) and gives a number for each response."
            )

    def __call__(self, prompts: list[str], responses: list[str]) -> Sequence[float]:
        with self._beside():
            return self.function(prompts, responses)

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return FileReward, (str(self.path), self.name)

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """Imports find what lies beside the file, and not what lies beside another reward."""
        folder, before = self.path.parent, set(sys.modules)
        hidden = {name: sys.modules[name] for name in self.neighbours if name in sys.modules}
        sys.path.insert(0, str(folder))
        sys.modules.update(self.neighbours)
        try:
            yield
        finally:
            sys.path.remove(str(folder))
            for name in set(sys.modules) - before:
                place = getattr(sys.modules[name], "__file__", None)
                if place and folder in Path(place).resolve().parents:
                    self.neighbours[name] = sys.modules[name]
            for name in self.neighbours:
                sys.modules.pop(name, None)
            sys.modules.update(hidden)


def source_digest(path: str | Path) -> str:
    """A hash of a Python file and of the modules beside it that it imports, and those import.

    What else a reward reads (data, a server, an installed package) is not seen.
    """
    digest, waiting, seen = hashlib.sha256(), [Path(path).resolve()], set()
    folder = waiting[0].parent
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        text = file.read_bytes()
        digest.update(f"{file.relative_to(folder)} {len(text)}\n".encode() + text)
        for name in sorted(_imported(text)):
            parts = name.split(".")
            if (package := folder / parts[0]).is_dir():
                waiting += sorted(package.rglob("*.py"), reverse=True)
            elif (module := folder / f"{parts[0]}.py").is_file():
                waiting.append(module)
    return digest.hexdigest()[:16]


def _imported(source: bytes) -> set[str]:
    """The names of the modules that a file imports, anywhere in it; none of a broken file."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return set()
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    froms = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return plain | {name for name in froms if name}
