"""Sightline beside the best peer, from the rows that the benchmarks kept.

    python -m bench.table            # prints it
    python -m bench.table --write    # and puts it into docs/performance.md

For each task the last row of each engine and batch counts; a peer counts at the batch size that suits it best.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.gpu import AIMS
from bench.measure import ON_GPU, RESULTS, ROOT

PAGE: Final = ROOT / "docs" / "performance.md"
MARKS: Final = ("bench", "gpu")
"""Of the comments between which each table stands."""
SCRIPTS: Final = ("embed", "rerank")
HEAD: Final = (
    "| task | model, arithmetic | Sightline | best peer | ratio | peer at batch 32 | useful GFLOP/s (peak) | + MB |\n"
    "|---|---|---|---|---|---|---|---|"
)


NO_GPU: Final = "Not measured: no GPU has been at hand since `bench/gpu.py` was written."
GPU_HEAD: Final = (
    "| task | model | Sightline | best peer | ratio | aim | useful GFLOP/s (peak) | GPU MB |\n"
    "|---|---|---|---|---|---|---|---|"
)


def rows_of(folder: Path, scripts: Sequence[str] = SCRIPTS) -> list[dict[str, Any]]:
    """The last row of each engine, batch and task."""
    last: dict[tuple[str, ...], dict[str, Any]] = {}
    for script in scripts:
        path = folder / f"{script}.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            row = json.loads(line)
            if "size" in row:
                last[row["task"], row["size"], row["dtype"], row["engine"]] = row
    return list(last.values())


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one line for each task and arithmetic in which Sightline was measured."""
    lines = [HEAD]
    for ours in (row for row in rows if row["engine"] == "sightline"):
        peers = peers_of(ours, rows)
        best = peers[0] if peers else None
        wide = max((row["items_s"] for row in peers if row["engine"].endswith("batch 32")), default=None)
        cells = [
            ours["task"],
            f"{ours['size']}, {ours['dtype']}",
            rate(ours["items_s"]),
            f"{rate(best['items_s'])} ({best['engine']})" if best else "not measured",
            f"**{ours['items_s'] / best['items_s']:.2f}**" if best else "",
            rate(wide) if wide else "",
            f"{ours['gflop_s']:.0f} ({ours['peak_gflop_s']:.0f})",
            f"{ours['extra_mb']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gpu_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each task and size that is to be measured on a GPU; what was not measured is empty."""
    lines = [GPU_HEAD]
    for task, aims in AIMS.items():
        for size, aim in aims.items():
            of_size = (row for row in rows if (row["task"], row["size"], row["engine"]) == (task, size, "sightline"))
            cells = [task, size, "", "", "", f"{aim}/s", "", ""]
            for ours in of_size:
                cells[2] = rate(ours["items_s"])
                for best in peers_of(ours, rows)[:1]:
                    ratio = ours["items_s"] / best["items_s"]
                    cells[3:5] = [f"{rate(best['items_s'])} ({best['engine']})", f"**{ratio:.2f}**"]
                cells[6:] = [f"{ours['gflop_s']:.0f} ({ours['peak_gflop_s']:.0f})", f"{ours['gpu_mb']:.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def peers_of(ours: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Other engines at the same work, the fastest first."""
    same = [row for row in rows if all(row[key] == ours[key] for key in ("task", "size", "dtype"))]
    return sorted((row for row in same if row is not ours), key=lambda row: -row["items_s"])


def about(rows: list[dict[str, Any]]) -> str:
    """When and on what the rows were measured: a sentence for each run that some of them are of."""
    runs: dict[str, set[str]] = {}
    for row in sorted(rows, key=lambda row: str(row["when"])):
        versions = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
        run = f"{row['when'][:10]}, commit {row['commit']}, {row['device']}, {row['threads']} threads, {versions}"
        runs.setdefault(run, set()).add(f"{row['size']}, {row['dtype']}")
    if len(runs) == 1:
        return f"{next(iter(runs))}."
    return "\n".join(f"- {'; '.join(sorted(kinds))}: {run}." for run, kinds in runs.items())


def rate(items_s: float) -> str:
    """Items a second, three digits of the slow ones.

    >>> rate(11.402), rate(0.0618)
    ('11.40/s', '0.062/s')
    """
    return f"{items_s:.2f}/s" if items_s >= 0.1 else f"{items_s:.3f}/s"


def main() -> None:
    """Print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    rows, on_gpu = rows_of(RESULTS), rows_of(RESULTS, [ON_GPU])
    made = (f"{about(rows)}\n\n{table(rows)}", f"{about(on_gpu) if on_gpu else NO_GPU}\n\n{gpu_table(on_gpu)}")
    print("\n\n".join(made))
    if given.write:
        text = PAGE.read_text(encoding="utf-8")
        for mark, what in zip(MARKS, made, strict=True):
            begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
            before, rest = text.split(begin)
            text = f"{before}{begin}\n{what}\n{end}{rest.split(end)[1]}"
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
