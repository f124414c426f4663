"""Is this computer ready for the book? `irlbook.doctor()` asks quickly, `irlbook doctor` at length.

The ranges of versions are those that the package itself declares (pyproject.toml): one place.
"""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from irlbook.errors import EnvironmentProblemError

__all__ = [
    "CHECKS",
    "Finding",
    "Level",
    "PARITY_TOLERANCE",
    "check_kernel",
    "check_machine",
    "check_packages",
    "check_sliders",
    "check_torch",
    "device_parity",
    "doctor",
    "print_report",
]

Level = Literal["ok", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        level: "ok"; "warning": the book runs, with a handicap; "broken": it does not.
        what: was found.
        mend: what to do; empty when all is well.
    """

    level: Level
    what: str
    mend: str = ""

    def __str__(self) -> str:
        mend = f"\n          mend: {self.mend}" if self.mend else ""
        return f"{self.level:>7}   {self.what}{mend}"


def doctor() -> None:
    """Check the versions of Python and packages in a few milliseconds; importing none of them.

    Prints `irlbook: environment ok`, or each problem with its mend.

    Raises:
        EnvironmentProblemError: a needed package is missing or out of range.
    """
    found = [*check_packages(), *check_sliders()]
    problems = [finding for finding in found if finding.level != "ok"]
    if not problems:
        print("irlbook: environment ok")
        return
    print("irlbook: this environment has problems")
    for problem in problems:
        print(problem)
    if any(problem.level == "broken" for problem in problems):
        raise EnvironmentProblemError(
            "; ".join(p.what for p in problems if p.level == "broken")
            + ". Mend it as printed above, then restart the kernel."
        )


def check_packages() -> Iterator[Finding]:
    """Compare Python and every needed package with the ranges that irlbook declares."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        declared = metadata.metadata("irlbook")
    except metadata.PackageNotFoundError:
        yield Finding(
            "warning",
            "irlbook is used without being installed, so versions cannot be checked",
            "run this in its folder: pip install -e .",
        )
        return
    python, needs = platform.python_version(), (declared.get_all("Requires-Python") or [""])[0]
    if SpecifierSet(needs).contains(python, prereleases=True):
        yield Finding("ok", f"Python {python} (needs {needs})")
    else:
        yield Finding(
            "broken", f"Python {python}, but the book needs {needs}", "install a newer Python"
        )
    for text in declared.get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        mend = f'pip install "{wanted}"'
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding("broken", f"{requirement.name} is not installed", mend)
            continue
        if version and requirement.specifier.contains(version, prereleases=True):
            yield Finding("ok", f"{requirement.name} {version} (needs {requirement.specifier})")
        else:
            what = f"{requirement.name} {version}, but the book needs {requirement.specifier}"
            yield Finding("broken", what, mend)


def check_sliders() -> Iterator[Finding]:
    """In a notebook: can it show sliders? They come with the extra `lab`."""
    if "ipykernel" in sys.modules and find_spec("ipywidgets") is None:
        yield Finding(
            "warning",
            "ipywidgets is not installed, so cells with sliders will fail",
            'pip install "irlbook[lab]"',
        )


# The long report ----------------------------------------------------------------------------------


def check_machine() -> Iterator[Finding]:
    """Cores, memory and disk."""
    import psutil

    from irlbook.authoring.notebooks import usable_cores

    cores = usable_cores()
    yield Finding("ok", f"{cores} CPU core{'s' if cores > 1 else ''}")
    free = psutil.virtual_memory().available / 2**30
    if free >= 2:
        yield Finding("ok", f"{free:.1f} GB of memory free")
    else:
        yield Finding(
            "warning",
            f"only {free:.1f} GB of memory free; chapters on language models need up to 2 GB",
            "close other programs and other kernels",
        )
    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    if disk >= 1:
        yield Finding("ok", f"{disk:.1f} GB of disk free")
    else:
        yield Finding("warning", f"only {disk:.1f} GB of disk free", "free some space")


def check_kernel() -> Iterator[Finding]:
    """Does Jupyter's `python3` kernel start this Python?"""
    if find_spec("jupyter_client") is None or find_spec("ipykernel") is None:
        yield Finding(
            "warning",
            "Jupyter is not installed, so notebooks can be neither opened nor run",
            'pip install "irlbook[lab]"',
        )
        return
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        program = ""
    found = shutil.which(program) if program else None
    # Jupyter replaces a bare "python" by the Python that it runs on
    bare = program in ("python", "python3", f"python3.{sys.version_info.minor}")
    if bare or (found and Path(found).parent.resolve() == Path(sys.executable).parent.resolve()):
        yield Finding("ok", "Jupyter's python3 kernel is this Python")
    else:
        yield Finding(
            "warning",
            "Jupyter's python3 kernel is another Python, which may not see irlbook",
            f'"{sys.executable}" -m ipykernel install --sys-prefix',
        )


def device_parity(device: str) -> dict[str, float]:
    """Largest difference of a small language model's head on `device` from float64 on the CPU.

    Log-probabilities (64, 512) of a linear layer, in float32 and in bfloat16.

    Returns:
        {"float32": ..., "bfloat16": ...} in nats.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(64, 256, generator=generator, dtype=torch.float64)
    head = torch.randn(256, 512, generator=generator, dtype=torch.float64) / 16
    exact = torch.log_softmax(hidden @ head, dim=-1)
    errors = {}
    for dtype in (torch.float32, torch.bfloat16):
        logits = hidden.to(device, dtype) @ head.to(device, dtype)
        found = torch.log_softmax(logits.float(), dim=-1).cpu().double()
        errors[str(dtype).removeprefix("torch.")] = float((found - exact).abs().max())
    return errors


PARITY_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}
"""In nats; float32 computed as TF32 exceeds it."""


def check_torch() -> Iterator[Finding]:
    """Threads, GPU, and whether devices agree with the CPU."""
    try:
        import torch
    except ImportError as error:
        yield Finding("broken", f"torch cannot be imported: {error}", "pip install --force torch")
        return
    threads = torch.get_num_threads()
    chosen = os.environ.get("OMP_NUM_THREADS")
    said = f"OMP_NUM_THREADS={chosen}" if chosen else "OMP_NUM_THREADS is not set"
    yield Finding("ok", f"torch uses {threads} thread{'s' if threads > 1 else ''} ({said})")
    devices = ["cpu"]
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        yield Finding("ok", f"GPU: {gpu.name}, {gpu.total_memory / 2**30:.0f} GB")
        devices.append("cuda")
    else:
        yield Finding("ok", "no CUDA GPU; every chapter runs on the CPU")
    if torch.backends.mps.is_available():
        yield Finding(
            "warning",
            "Apple MPS is present; training on it has given other results than the CPU, "
            "and the book never uses it by itself",
            'stay with device="cpu"',
        )
    for device in devices:
        yield from _judge_parity(device)


def _judge_parity(device: str) -> Iterator[Finding]:
    try:
        errors = device_parity(device)
    except RuntimeError as error:
        level: Level = "broken" if device == "cpu" else "warning"
        first = str(error).strip().splitlines()[0]
        yield Finding(level, f"{device}: a small matrix product fails: {first}", "update torch")
        return
    for dtype, off in errors.items():
        if off <= PARITY_TOLERANCE[dtype]:
            yield Finding("ok", f"{device} {dtype}: log-probabilities exact to {off:.0e} nats")
        else:
            yield Finding(
                "warning",
                f"{device} {dtype}: log-probabilities are off by {off:.1g} nats",
                'torch.set_float32_matmul_precision("highest"), or stay with device="cpu"',
            )


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Python and its packages": check_packages,
    "the machine": check_machine,
    "Jupyter's kernel": check_kernel,
    "torch, which takes some seconds": check_torch,
}
"""What `irlbook doctor` looks at, in this order."""


def print_report() -> bool:
    """Check everything, and print each check as it begins; True when nothing is broken."""
    findings = []
    for what, check in CHECKS.items():
        print(f"checking {what} ...", flush=True)
        for finding in _guarded(what, check):
            print(finding, flush=True)
            findings.append(finding)
    broken = sum(finding.level == "broken" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    print(
        f"irlbook: {f'{broken} broken' if broken else 'environment ok'}"
        + (f", {warnings} to be warned of" if warnings else "")
    )
    return not broken


def _guarded(what: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A doctor reports what it meets, and goes on."""
    try:
        yield from check()
    except Exception as error:
        found = f"the check of {what.split(',')[0]} failed: {type(error).__name__}: {error}"
        yield Finding("warning", found, "mend what is broken above, then run it again")
