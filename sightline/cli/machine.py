"""What this machine is: its memory, its device, and which of the known models it can carry."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

GB: Final = 1e9


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model known by name.

    Attributes:
        name: what ``--model`` or ``--reranker`` takes.
        task: what it is for.
        parameters: how many numbers it has.
        size_gb: of its weights in bfloat16 (in the package, for builtin), in 10^9 bytes.
        dim: width of the full vector; 0 for a reranker.
    """

    name: str
    task: Literal["embedder", "reranker"]
    parameters: int
    size_gb: float
    dim: int


def _known(name: str, task: Literal["embedder", "reranker"], parameters: int, dim: int) -> KnownModel:
    return KnownModel(name, task, parameters, round(parameters * 2 / GB, 1), dim)


# parameter counts: computed from the published configurations, equal to the checkpoints' own metadata
QWEN: Final = (
    _known("Qwen/Qwen3-VL-Embedding-2B", "embedder", 2_127_532_032, 2048),
    _known("Qwen/Qwen3-VL-Embedding-8B", "embedder", 8_144_793_840, 4096),
    _known("Qwen/Qwen3-VL-Reranker-2B", "reranker", 2_127_532_032, 0),
    _known("Qwen/Qwen3-VL-Reranker-8B", "reranker", 8_767_123_696, 0),
)
REAL_EMBEDDER: Final = QWEN[0]

HEADROOM_GB: Final = 2.0
"""Beside the weights: the interpreter, one batch of pages, decoded media."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory in 10^9 bytes. ``gpu`` is "" without one."""

    memory_gb: float
    cores: int
    gpu: str = ""
    gpu_memory_gb: float = 0.0

    def carries(self, size_gb: float) -> str:
        """Where weights of this size fit: "gpu", "cpu" or "" for nowhere."""
        need = size_gb + HEADROOM_GB
        if self.gpu and self.gpu_memory_gb >= need:
            return "gpu"
        return "cpu" if self.memory_gb >= need else ""

    def verdict(self, size_gb: float) -> str:
        """Whether it fits, in words.

        >>> Machine(24.0, 8).verdict(4.3), Machine(4.0, 2).verdict(16.3)
        ('yes, on the CPU (slow)', 'no: needs about 18.3 GB of memory, here are 4.0')
        """
        where = self.carries(size_gb)
        if where == "gpu":
            return f"yes, on {self.gpu}"
        if where == "cpu":
            return "yes, on the CPU (slow)" if size_gb > 1 else "yes"
        return f"no: needs about {size_gb + HEADROOM_GB:.1f} GB of memory, here are {self.memory_gb:.1f}"


def look() -> Machine:
    """This machine. torch is loaded only where there is something for it to find."""
    gpu, gpu_memory = "", 0.0
    if _may_have_gpu():
        with contextlib.suppress(Exception):
            gpu, gpu_memory = _gpu()
    return Machine(memory_bytes() / GB, num_cores(), gpu, gpu_memory)


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory of the machine, or of the container around this process where that is less."""
    total = _windows_memory() if sys.platform == "win32" else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(Path(limit).read_text(encoding="ascii")))
    return total


def _windows_memory() -> int:
    import ctypes

    kilobytes = ctypes.c_ulonglong(0)
    ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes))  # type: ignore[attr-defined,unused-ignore]
    return kilobytes.value * 1024


def _may_have_gpu() -> bool:
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return sys.platform == "win32" or any(
        Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    )


def _gpu() -> tuple[str, float]:
    import torch

    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        return str(about.name), about.total_memory / GB
    if torch.backends.mps.is_available():
        return "the GPU of this Mac", memory_bytes() / GB * 0.75
    return "", 0.0
