"""The doctor: quick and quiet when all is well, and each problem comes with its mend."""

import importlib.metadata
import subprocess
import sys
import time
from email.message import Message

import pytest

import irlbook
from irlbook.authoring import environment
from irlbook.authoring.environment import Finding
from irlbook.errors import EnvironmentProblemError


def declare(monkeypatch, *requirements: str, python: str = ">=3.11") -> None:
    declared = Message()
    declared["Requires-Python"] = python
    for requirement in requirements:
        declared["Requires-Dist"] = requirement
    monkeypatch.setattr(environment.metadata, "metadata", lambda name: declared)


def test_all_is_well_here(capsys):
    irlbook.doctor()
    irlbook.doctor()  # stays callable after the first call imported its module
    assert capsys.readouterr().out == "irlbook: environment ok\n" * 2


def test_doctor_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys, irlbook; irlbook.doctor(); "
        "print([m for m in ('torch', 'scipy', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "irlbook: environment ok\n[]\n"
    started = time.perf_counter()
    list(environment.check_packages())
    assert time.perf_counter() - started < 0.5  # usually 0.02


def test_missing_and_old_packages_are_named_with_the_mend(monkeypatch, capsys):
    declare(monkeypatch, "numpy>=99", "no-such-package>=2", "pytest>=1; extra == 'test'", "rich")
    with pytest.raises(EnvironmentProblemError, match="numpy .* needs >=99; no-such-package is"):
        irlbook.doctor()
    printed = capsys.readouterr().out
    assert 'mend: pip install "numpy>=99"' in printed
    assert 'mend: pip install "no-such-package>=2"' in printed
    assert "pytest" not in printed and "rich" not in printed


def test_old_python_is_broken(monkeypatch):
    declare(monkeypatch, python=">=9.0")
    with pytest.raises(EnvironmentProblemError, match="the book needs >=9.0"):
        irlbook.doctor()


def test_used_without_installing_only_warns(monkeypatch, capsys):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(environment.metadata, "metadata", missing)
    irlbook.doctor()
    assert "pip install -e ." in capsys.readouterr().out


def test_long_report_covers_the_machine(capsys):
    assert environment.print_report()
    printed = capsys.readouterr().out
    for part in ("CPU core", "of memory free", "of disk free", "kernel", "thread", "cpu float32"):
        assert part in printed
    assert printed.splitlines()[-1].startswith("irlbook: environment ok")


def test_long_report_goes_on_when_a_check_fails(monkeypatch, capsys):
    def check_machine():
        raise OSError("no disk")

    declare(monkeypatch, "no-such-package")
    monkeypatch.setitem(environment.CHECKS, "the machine", check_machine)
    last = list(environment.CHECKS)[-1]
    monkeypatch.setitem(environment.CHECKS, last, lambda: [Finding("ok", "skipped")])
    assert not environment.print_report()
    printed = capsys.readouterr().out
    assert "the check of the machine failed: OSError: no disk" in printed
    assert "skipped" in printed
    assert printed.splitlines()[-1].startswith("irlbook: 1 broken, ")


def test_little_memory_and_disk_are_warned_of(monkeypatch):
    psutil = pytest.importorskip("psutil")

    class Little:
        available = free = 2**28

    monkeypatch.setattr(psutil, "virtual_memory", Little)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: Little)
    findings = list(environment.check_machine())
    assert [finding.level for finding in findings] == ["ok", "warning", "warning"]
    assert all(finding.mend for finding in findings[1:])


@pytest.mark.parametrize(
    ("program", "level"),
    [(sys.executable, "ok"), ("python", "ok"), ("/elsewhere/bin/python", "warning"), (None, None)],
)
def test_kernel_of_another_python_is_warned_of(monkeypatch, program, level):
    from jupyter_client import kernelspec

    def get(self, name):
        if program is None:
            raise kernelspec.NoSuchKernel(name)
        return kernelspec.KernelSpec(argv=[program, "-m", "ipykernel_launcher"])

    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", get)
    (finding,) = environment.check_kernel()
    assert finding.level == (level or "warning")


def test_parity_on_the_cpu_is_within_tolerance():
    pytest.importorskip("torch")
    errors = environment.device_parity("cpu")
    assert 0 < errors["float32"] < environment.PARITY_TOLERANCE["float32"]
    assert errors["float32"] < errors["bfloat16"] < environment.PARITY_TOLERANCE["bfloat16"]


def test_parity_judges_a_gpu_that_rounds_and_one_that_fails(monkeypatch):
    torch = pytest.importorskip("torch")

    class Gpu:
        name, total_memory = "Some GPU", 8 * 2**30

    def parity(device):
        if device == "cpu":
            return {"float32": 1e-6, "bfloat16": 0.01}
        return {"float32": 2e-2, "bfloat16": 0.01}

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Gpu)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(environment, "device_parity", parity)
    text = "\n".join(map(str, environment.check_torch()))
    assert "GPU: Some GPU, 8 GB" in text
    assert "warning   Apple MPS" in text
    assert "warning   cuda float32: log-probabilities are off by 0.02 nats" in text

    def broken(device):
        raise RuntimeError("no kernel image\nlong trace")

    monkeypatch.setattr(environment, "device_parity", broken)
    levels = {f.what.split(":")[0]: f.level for f in environment.check_torch() if f.mend}
    assert levels["cpu"] == "broken" and levels["cuda"] == "warning"


def test_torch_that_cannot_be_imported_is_broken(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (finding,) = environment.check_torch()
    assert finding.level == "broken" and finding.mend
