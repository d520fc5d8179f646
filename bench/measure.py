"""How it is measured: engines in processes of their own, in turns, on the same items; useful arithmetic, its peak."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bench.small import SEEN_BEFORE, SHAPES, SIZES, is_alone
from sightline.model.packed import PackedLinear, can_pack
from sightline.prep.prepare import Prepared
from tests.parity.checkpoints import Shape

ROOT: Final = Path(__file__).parents[1]
OURS: Final = "sightline"
IN_BF16: Final = "sightline in bf16"
"""What int8 weights are measured beside: no peer has them."""
SHORT_OFTEN: Final = 5
"""Times as often as other tasks: a quarter of a second of short texts is soon disturbed."""
PEERS: Final = ("transformers", "sentence-transformers")
ENGINES: Final = (OURS, IN_BF16, *PEERS)
VERSIONS: Final = ("torch", "transformers", "numpy", "tokenizers")
RESULTS: Final = Path(__file__).parent / "results"
ON_GPU: Final = "gpu"
"""Where results of a GPU are kept, apart from those of a CPU."""
SCRATCH: Final = Path(tempfile.gettempdir()) / "sightline-bench"


def arguments(description: str | None, **defaults: Any) -> argparse.Namespace:
    """The options that every script has; ``defaults`` of its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", action="append", choices=ENGINES, help="only these (default all that are there)")
    parser.add_argument("--size", choices=SIZES, default="small", help="shape of the random checkpoint")
    parser.add_argument("--device", default="cpu", help="torch device of all engines")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "int8"], default="float32")
    parser.add_argument("--quick", action="store_true", help="a tiny model and a few items: shows that the script runs")
    parser.add_argument("--task", action="append", help="only these tasks (may be given several times)")
    parser.add_argument("--batch", type=int, action="append", help="batch sizes of the peers (default 1, 8, 32)")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--save", action="store_true", help="append the rows to bench/results/")
    parser.set_defaults(**defaults)
    given = parser.parse_args()
    if given.quick:
        given.size, given.repeats = "tiny", 1
    others = [IN_BF16] if given.dtype == "int8" else [name for name in PEERS if find_spec(name.replace("-", "_"))]
    given.engine = given.engine or [OURS, *others]
    given.batch = given.batch or ([1, 4] if given.quick else [1, 8, 32])
    torch.set_num_threads(given.threads)
    return given


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a result."""

    engine: str
    task: str
    size: str
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
    gpu_mb: float
    """Most that torch held on the GPU, weights included."""
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


class Worker:
    """An engine in a process of its own, see ``bench/worker.py``."""

    def __init__(self, engine: str, kind: str, folder: Path, given: argparse.Namespace) -> None:
        dtype = "bfloat16" if engine == IN_BF16 else given.dtype
        words = [engine, kind, str(folder), dtype, str(given.threads), given.size, given.device]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def ask(self, task: str, batch: int) -> dict[str, Any]:
        """What a run showed."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"task": task, "batch": batch}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the engine ended with status {self.process.wait()}")
        return dict(json.loads(line))

    def close(self) -> None:
        """Ends it."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


class Bench:
    """Runs tasks on engines, one process each, in turns, and prints them.

    Args:
        kind: ``embed`` or ``rerank``.
        given: the options.
        folder: the checkpoint that all engines read.
    """

    def __init__(self, kind: str, given: argparse.Namespace, folder: Path) -> None:
        self.kind, self.given, self.folder = kind, given, folder
        self.rows: list[Row] = []
        self.commit = commit()
        self.workers = {engine: Worker(engine, kind, folder, given) for engine in given.engine}
        print(f"{given.size}, {given.dtype}, {given.threads} threads\n{TABLE_HEAD}")

    def run(self, task: str, prompts: Sequence[Prepared]) -> None:
        """All engines and batches on one task; the fastest of the repeats counts, so that the first is the warm-up."""
        work = work_of(prompts, SHAPES[self.given.size])
        asked: list[tuple[str, int]] = []
        for engine in self.given.engine:
            sizes = [0] if engine not in PEERS else [1] if is_alone(task) else self.given.batch
            asked += [(engine, batch) for batch in sizes if batch < 2 or batch // 2 < work.items]
        if task == SEEN_BEFORE:
            asked = [(engine, batch) for engine, batch in asked if engine not in PEERS]
        best: dict[tuple[str, int], dict[str, Any]] = {}
        results: dict[tuple[str, int], NDArray[np.float32]] = {}
        failed: dict[tuple[str, int], str] = {}
        peak = 0.0
        often = SHORT_OFTEN if is_alone(task) and self.given.size == "small" else 1
        for _ in range(self.given.repeats * often):
            # with the engines, for a shared machine may be twice as fast a minute later
            quick, dtype = self.given.size == "tiny", getattr(torch, self.given.dtype)
            peak = max(peak, matrix_peak(dtype, quick=quick, device=self.given.device))
            for engine, batch in asked:  # in turns: what disturbs the machine disturbs all of them
                if (engine, batch) in failed:
                    continue
                seen = self.workers[engine].ask(task, batch)
                if "failed" in seen:
                    failed[engine, batch] = seen["failed"]
                    continue
                results[engine, batch] = np.load(seen["result"])
                if (engine, batch) not in best or seen["wall_s"] < best[engine, batch]["wall_s"]:
                    best[engine, batch] = seen
        for (engine, batch), why in failed.items():
            print(f"| {task} | {engine}, batch {batch} | {why} |", flush=True)
        for (engine, batch), seen in best.items():
            self._add(engine if not batch else f"{engine}, batch {batch}", task, work, seen, peak)
            check(next(iter(results.values())), results[engine, batch], self.given.dtype, f"{task}, {engine}")

    def _add(self, engine: str, task: str, work: Work, seen: dict[str, Any], peak: float) -> None:
        wall = seen["wall_s"]
        vision, decoder = seen["vision"] / wall, seen["decoder"] / wall
        self.rows.append(
            Row(
                engine=engine,
                task=task,
                size=self.given.size,
                dtype=self.given.dtype,
                items=work.items,
                items_s=round(work.items / wall, 3),
                tokens_s=round(work.tokens / wall, 1),
                padding=round(seen["padding"] / (seen["padding"] + work.tokens), 3),
                wall_s=round(wall, 3),
                cpu_s=round(seen["cpu_s"], 3),
                foreign_cpu=round(seen["foreign_cpu"], 2),
                peak_rss_mb=round(seen["peak_rss_mb"], 1),
                extra_mb=round(seen["extra_mb"], 1),
                share_vision=round(vision, 3),
                share_decoder=round(decoder, 3),
                share_prep=round(max(0.0, 1 - vision - decoder), 3) if self.given.device == "cpu" else 0.0,
                gflop_s=round(work.gflop / wall, 1),
                peak_gflop_s=peak,
                gpu_mb=round(seen["gpu_mb"], 1),
                device=device() if self.given.device == "cpu" else torch.cuda.get_device_name(self.given.device),
                threads=self.given.threads,
                commit=self.commit,
                versions={name: version(name) for name in VERSIONS},
                when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            )
        )
        print(table_line(self.rows[-1]), flush=True)

    def close(self) -> None:
        """Prints one line of JSON for each row, and keeps them when asked."""
        for worker in self.workers.values():
            worker.close()
        lines = [json.dumps(asdict(row)) for row in self.rows]
        if self.given.save:
            RESULTS.mkdir(exist_ok=True)
            name = self.kind if self.given.device == "cpu" else ON_GPU
            with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in lines)
        print("\n" + "\n".join(lines))


def check(ours: NDArray[np.float32], theirs: NDArray[np.float32], dtype: str, what: str) -> None:
    """All engines computed the same thing, or the comparison means nothing."""
    narrow = dtype != "float32"
    if ours.ndim == 1:  # log-odds
        worst = float(np.abs(ours - theirs).max() / max(1.0, float(np.abs(theirs).max())))
        allowed = 0.2 if narrow else 1e-4
    else:
        worst = 1 - float((ours * theirs).sum(1).min())
        allowed = 2e-2 if narrow else 1e-5
    if worst > allowed:
        raise SystemExit(f"{what}: the engines disagree by {worst:.1e}")


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


def matrix_peak(dtype: torch.dtype, *, quick: bool, device: str = "cpu") -> float:
    """GFLOP/s of a large product on this machine, best of several: what the network could reach at most."""
    size = 256 if quick else 2048 if device == "cpu" else 8192
    dtype = torch.bfloat16 if dtype == torch.int8 else dtype
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    is_packed = device == "cpu" and can_pack(dtype)
    packed = PackedLinear(torch.nn.Linear(size, size, bias=False, dtype=dtype)) if is_packed else None
    best = float("inf")
    for _ in range(12):
        _wait_for(device)
        start = time.perf_counter()
        packed(a) if packed else F.linear(a, b)
        _wait_for(device)
        best = min(best, time.perf_counter() - start)
    return round(2 * size**3 / best / 1e9, 1)


def _wait_for(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


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
        root = ROOT
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", "sightline") else "")
