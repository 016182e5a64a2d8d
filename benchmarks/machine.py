"""What a run was measured on."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any


def machine() -> dict[str, Any]:
    """What has to be known of this machine to compare figures."""
    model = ""
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cores": os.cpu_count(),
        "cpu": model,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
    }


def stolen() -> tuple[int, int]:
    """What the host has given to other machines while this one wanted it, and all the time of its cores, in ticks."""
    if not os.path.exists("/proc/stat"):
        return 0, 0
    ticks = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[7], sum(ticks)


def sync_time(rounds: int = 50) -> float:
    """Milliseconds that the disk of temporary files takes to keep 4 KiB for good: the median."""
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(rounds):
            os.write(file.fileno(), bytes(4096))
            start = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return median(times) * 1e3
