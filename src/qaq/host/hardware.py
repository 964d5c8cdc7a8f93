"""What this machine has, found out without importing torch (planning must stay quick)."""

import ctypes
import functools
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from qaq.host.terminal import show

PATIENCE = 30.0  # seconds


@functools.cache
def cuda_devices() -> tuple[str, ...]:
    """Names of the NVIDIA devices that programs started from here would see."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or not shutil.which("nvidia-smi"):
        return ()
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        show("nvidia-smi does not answer: this counts as a machine without a card", error=True)
        return ()
    return tuple(found.stdout.split("\n")[:-1]) if found.returncode == 0 else ()


def resolve_device(device: str) -> str:
    """`auto` becomes `cuda` where there is one, else `cpu`."""
    if device != "auto":
        return device
    return "cuda" if cuda_devices() else "cpu"


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The processor's feature flags; empty where the system does not tell."""
    return frozenset((_cpuinfo("flags") or "").split())


def resolve_dtype(dtype: str, device: str) -> str:
    """`auto` becomes bfloat16 where the hardware multiplies it natively, else float32."""
    if dtype != "auto":
        return dtype
    native = resolve_device(device) == "cuda" or bool(cpu_flags() & {"amx_bf16", "avx512_bf16"})
    return "bfloat16" if native else "float32"


def cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_rss_mib() -> int:
    """The most memory that this process has held, in MiB.

    `ru_maxrss` would begin with what the process that started this one held.
    """
    if (status := Path("/proc/self/status")).exists():
        held = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(held[1]) // 1024 if held else 0
    import resource

    divisor = 1 << 20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // divisor


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def describe() -> dict[str, Any]:
    """The facts about this machine that a manifest records."""
    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpuinfo("model name") or platform.processor(),
        "cores": cores(),
        "cuda": list(cuda_devices()),
    }


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def keep_freed_memory() -> bool:
    """Let this process keep what it frees for its next allocations; False where that is unknown.

    glibc hands large blocks back to the system when they are freed and gets them anew, page fault
    by page fault. A loop that makes the same large arrays again and again can lose more time there
    than in its arithmetic. The peak stays; what is lost is that memory shrinks in between.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 1 << 30) and mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))


def keep_few_kernels() -> None:
    """Have oneDNN keep 256 of its kernels and not 1,024, unless the user says how many.

    It makes one for each number of rows, and batches seldom have the same. Must come before its
    first product.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")


def _cpuinfo(name: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith(name)), None)
