"""Settings of every test run: one thread a process, no window, the same random cases each time."""

import os

# Before numpy or torch is imported; the kernels that nbval starts inherit it. Two test processes
# with all threads each would wait for one another.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as in a student's kernel
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=50,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# The students' notebooks hold stubs that fail on purpose.
collect_ignore = ["exercises", "runs", "benchmarks", "docs"]
collect_ignore_glob = ["exercises/*.ipynb", "runs/*.ipynb"]  # also when the folder is asked for
