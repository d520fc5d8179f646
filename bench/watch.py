"""What a process sees of its own work: wall and CPU time, peak memory, time inside the towers, and its neighbours."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Stages:
    """Seconds inside the towers of a network on a CPU."""

    def __init__(self, vision: nn.Module, decoder: nn.Module) -> None:
        self.seconds = {"vision": 0.0, "decoder": 0.0}
        if next(vision.parameters(), torch.empty(0)).is_cuda:
            return  # calls come back before the work is done
        self._wrap(vision, "forward", "vision")
        for method in ("forward", "keys_values"):
            if hasattr(decoder, method):
                self._wrap(decoder, method, "decoder")

    def _wrap(self, module: nn.Module, method: str, stage: str) -> None:
        inner: Callable[..., Any] = getattr(module, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[stage] += time.perf_counter() - start

        setattr(module, method, timed)


@contextmanager
def observed() -> Iterator[dict[str, Any]]:
    """Wall and CPU seconds, peak memory, and the share of the cores that other processes took."""
    seen: dict[str, Any] = {}
    _reset_peak()
    on_gpu = torch.cuda.is_initialized()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    rss = status("VmRSS")
    busy, own, start = _busy_s(), time.process_time(), time.perf_counter()
    yield seen
    wall, cpu = time.perf_counter() - start, time.process_time() - own
    others = max(0.0, _busy_s() - busy - cpu)
    peak = max(status("VmHWM"), rss)
    seen.update(wall_s=wall, cpu_s=cpu, peak_rss_mb=peak, extra_mb=peak - rss)
    seen["gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0.0
    seen["foreign_cpu"] = min(1.0, others / (wall * (os.cpu_count() or 1)))


def _reset_peak() -> None:
    with suppress(OSError):  # not Linux: the peak is then that of the whole process
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def status(name: str) -> float:
    """Megabytes of a field of /proc/self/status, 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), 0.0)


def _busy_s() -> float:
    """CPU seconds the whole machine has worked."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    except OSError:
        return 0.0
    ticks = [int(value) for value in first[:8]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
