"""How it is measured: wall and CPU time, peak memory, stages, useful arithmetic, and what else ran on the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sightline.prep.prepare import Prepared
from tests.parity.checkpoints import Shape

RESULTS: Final = Path(__file__).parent / "results"
SCRATCH: Final = Path(tempfile.gettempdir()) / "sightline-bench"


def arguments(description: str | None) -> argparse.Namespace:
    """The options that every script has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--engine", choices=["all", "sightline", "transformers"], default="all")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--quick", action="store_true", help="a tiny model and a few items: shows that the script runs")
    parser.add_argument("--task", action="append", help="only these tasks (may be given several times)")
    parser.add_argument("--batch", type=int, action="append", help="batch sizes of transformers (default 1, 8, 32)")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--save", action="store_true", help="append the rows to bench/results/")
    given = parser.parse_args()
    given.batch = given.batch or ([1, 4] if given.quick else [1, 8, 32])
    given.repeats = 1 if given.quick else given.repeats
    torch.set_num_threads(given.threads)
    return given


class Stages:
    """Seconds inside the towers of a network."""

    def __init__(self, vision: nn.Module, decoder: nn.Module) -> None:
        self.seconds = {"vision": 0.0, "decoder": 0.0}
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


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a result."""

    engine: str
    task: str
    dtype: str
    items: int
    items_s: float
    tokens_s: float
    padding: float
    """Share of the tokens that are padding."""
    wall_s: float
    cpu_s: float
    """CPU seconds of this process: what is left to compare when other work takes the cores."""
    foreign_cpu: float
    """Share of the machine's cores that other processes took."""
    peak_rss_mb: float
    extra_mb: float
    """Peak above what the process held before the row (both engines' weights are in it)."""
    share_vision: float
    share_decoder: float
    share_prep: float
    """The rest: tokens, packing, copies."""
    gflop_s: float
    """Useful work of every prompt by itself: no padding, half of the causal square, nothing reused."""
    peak_gflop_s: float
    device: str
    threads: int
    commit: str
    versions: dict[str, str] = field(default_factory=dict)
    when: str = ""


@dataclass(frozen=True)
class Work:
    """What a task is: how many items, tokens, and operations by themselves."""

    items: int
    tokens: int
    gflop: float


def work_of(prompts: Sequence[Prepared], shape: Shape) -> Work:
    """Useful work of prompts, each by itself."""
    kv = shape.kv_heads * shape.head_dim
    wide = shape.heads * shape.head_dim
    decoder = shape.layers * (2 * shape.hidden * wide + 2 * shape.hidden * kv + 3 * shape.hidden * shape.mlp)
    block = 4 * shape.vision_hidden**2 + 2 * shape.vision_hidden * shape.vision_mlp
    merged = 4 * shape.vision_hidden
    merger = (1 + len(shape.deepstack)) * (merged * merged + merged * shape.hidden)
    flop = 0
    for prompt in prompts:
        flop += 2 * decoder * len(prompt) + shape.layers * 2 * wide * len(prompt) ** 2
        for visual in prompt.visuals:
            times, rows, columns = visual.grid
            patches = times * rows * columns
            flop += 2 * patches * (shape.vision_depth * block + visual.patches.shape[1] * shape.vision_hidden)
            flop += shape.vision_depth * 4 * shape.vision_hidden * times * (rows * columns) ** 2
            flop += 2 * (patches // 4) * merger
    return Work(len(prompts), sum(len(prompt) for prompt in prompts), flop / 1e9)


class Bench:
    """Measures tasks and prints them."""

    def __init__(self, script: str, given: argparse.Namespace) -> None:
        self.script, self.given = script, given
        self.rows: list[Row] = []
        self.peak = matrix_peak(getattr(torch, given.dtype), quick=given.quick)
        self.commit = commit()

    def wanted(self, engine: str, task: str) -> bool:
        """Whether the options ask for it."""
        return self.given.engine in ("all", engine) and (not self.given.task or task in self.given.task)

    def measure(
        self,
        engine: str,
        task: str,
        work: Work,
        run: Callable[[], tuple[NDArray[np.float32], int]],
        stages: Stages,
        before: Callable[[], None] = lambda: None,
    ) -> NDArray[np.float32]:
        """Runs a task ``repeats`` times; the fastest counts, so that the first is the warm-up.

        Args:
            engine: its name.
            task: its name.
            work: what it does.
            run: does it; gives back its result and how many tokens of padding went through the network.
            stages: of the engine's network.
            before: forgets what the last run left.

        Returns:
            the result.
        """
        assert self.given.repeats > 0
        best: dict[str, Any] = {}
        for _ in range(self.given.repeats):
            before()
            stages.seconds.update(vision=0.0, decoder=0.0)
            with observed() as seen:
                result, padding = run()
            seen |= stages.seconds | {"padding": padding}
            # what others take from the machine lengthens the wall time, hardly the CPU time
            if not best or seen["cpu_s"] < best["cpu_s"]:
                best = seen
        wall = best["wall_s"]
        vision, decoder = best["vision"] / wall, best["decoder"] / wall
        self.rows.append(
            Row(
                engine=engine,
                task=task,
                dtype=self.given.dtype,
                items=work.items,
                items_s=round(work.items / wall, 3),
                tokens_s=round(work.tokens / wall, 1),
                padding=round(best["padding"] / (best["padding"] + work.tokens), 3),
                wall_s=round(wall, 3),
                cpu_s=round(best["cpu_s"], 3),
                foreign_cpu=round(best["foreign_cpu"], 2),
                peak_rss_mb=round(best["peak_rss_mb"], 1),
                extra_mb=round(best["extra_mb"], 1),
                share_vision=round(vision, 3),
                share_decoder=round(decoder, 3),
                share_prep=round(max(0.0, 1 - vision - decoder), 3),
                gflop_s=round(work.gflop / wall, 1),
                peak_gflop_s=self.peak,
                device=device(),
                threads=self.given.threads,
                commit=self.commit,
                versions={name: version(name) for name in ("torch", "transformers", "numpy", "tokenizers")},
                when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            )
        )
        print(table_line(self.rows[-1]), flush=True)
        return result

    def close(self) -> None:
        """Prints one line of JSON for each row, and keeps them when asked."""
        lines = [json.dumps(asdict(row)) for row in self.rows]
        if self.given.save:
            RESULTS.mkdir(exist_ok=True)
            with (RESULTS / f"{self.script}.jsonl").open("a", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in lines)
        print("\n" + "\n".join(lines))


TABLE_HEAD: Final = (
    "| task | engine | items/s | tokens/s | padding | wall s | CPU s | vision | decoder | rest | GFLOP/s | + MB "
    "| others |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def table_line(row: Row) -> str:
    """One line of the table in Markdown."""
    cells = [
        *(row.task, row.engine, f"{row.items_s:.2f}", f"{row.tokens_s:.0f}", f"{row.padding:.0%}"),
        *(f"{row.wall_s:.2f}", f"{row.cpu_s:.2f}", f"{row.share_vision:.0%}", f"{row.share_decoder:.0%}"),
        *(f"{row.share_prep:.0%}", f"{row.gflop_s:.0f}", f"{row.extra_mb:.0f}", f"{row.foreign_cpu:.0%}"),
    ]
    return "| " + " | ".join(cells) + " |"


@contextmanager
def observed() -> Iterator[dict[str, Any]]:
    """Wall and CPU seconds, peak memory, and the share of the cores that other processes took."""
    seen: dict[str, Any] = {}
    _reset_peak()
    rss = _status("VmRSS")
    busy, own, start = _busy_s(), time.process_time(), time.perf_counter()
    yield seen
    wall, cpu = time.perf_counter() - start, time.process_time() - own
    others = max(0.0, _busy_s() - busy - cpu)
    peak = max(_status("VmHWM"), rss)
    seen.update(wall_s=wall, cpu_s=cpu, peak_rss_mb=peak, extra_mb=peak - rss)
    seen["foreign_cpu"] = min(1.0, others / (wall * (os.cpu_count() or 1)))


def _reset_peak() -> None:
    with suppress(OSError):  # not Linux: the peak is then that of the whole process
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status(name: str) -> float:
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


def matrix_peak(dtype: torch.dtype, *, quick: bool) -> float:
    """GFLOP/s of a large product on this machine, best of several: what the network could reach at most."""
    size = 256 if quick else 2048
    a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return round(2 * size**3 / best / 1e9, 1)


def device() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {os.cpu_count()} cores"


def commit() -> str:
    """The commit measured, with a + when files differ from it."""

    def git(*words: str) -> str:
        root = Path(__file__).parents[1]
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", "sightline") else "")
