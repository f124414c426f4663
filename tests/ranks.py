"""Two processes that talk to each other (gloo), as torchrun would start them."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def run_two(script: Path, *arguments: object, timeout: float = 120) -> None:
    """Run a script as rank 0 and rank 1 of two; both must end well, and in time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    # What torchrun sets, without the start of torchrun itself.
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    running = [
        subprocess.Popen(
            command,
            env=os.environ | common | {"MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        for process in running:
            errors = process.communicate(timeout=timeout)[1]
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()
