"""``python -m tests.torture``: the long form of every torture test, two at a time, and one table of what happened.

    python -m tests.torture [NAME…] [--scale 1.0] [--seed 0] [--save]

``--save`` writes the table into docs/reliability.md. Exit status 1 when any row is not clean.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from tests.torture.tally import Tally, table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"

LONG: dict[str, int] = {
    "kills": 1000,
    "failpoints": 600,
    "readers": 10_000,
    "writers": 400,
    "power": 200,
    "eio": 200,
    "heads": 80,
    "disk": 20,
    "cycles": 100,
    "fuzz": 6_000,
    "corpus": 1_350,
    "numbers": 2_000,
    "backups": 16,
    "rebuilds": 40,
    "repairs": 60,
    "migrations": 120,
    "soak": 100,
}
"""Module of this package and trials of its long form, the longest first. What a trial is, each module says."""


def run(name: str, number: int, seed: int) -> list[Tally]:
    """The trials of one module. What escapes them is a death."""
    started = time.perf_counter()
    try:
        found = importlib.import_module(f"tests.torture.{name}").trials(number, seed)
    except Exception as error:  # the table must be made whatever a test does
        found = Tally(name, deaths=1, said=f"{type(error).__name__}: {error}"[:200])
    tallies = [found] if isinstance(found, Tally) else list(found)
    return [replace(one, seconds=one.seconds or time.perf_counter() - started) for one in tallies]


def stamp() -> str:
    """Date, commit and kind of machine."""
    head = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(head, cwd=ROOT, capture_output=True, text=True, check=False)
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
    machine = f"{os.cpu_count()} cores, {model[1] if model else platform.machine()}, {platform.system()}"
    return f"{datetime.date.today().isoformat()}, commit {commit.stdout.strip() or 'unknown'}, {machine}"


def save(rows: str) -> None:
    """Replace what stands between the marks of the page."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- torture -->", "<!-- /torture -->"
    before, rest = text.split(begin)
    PAGE.write_text(f"{before}{begin}\n{stamp()}\n\n{rows}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def main() -> int:
    """Run, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *LONG], metavar="NAME", help=", ".join(LONG))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the long form's trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="write the table into docs/reliability.md")
    given = parser.parse_args()
    names = given.names or list(LONG)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        runs = [pool.submit(run, name, max(1, round(LONG[name] * given.scale)), given.seed) for name in names]
        tallies: list[Tally] = []
        for done in runs:
            tallies += done.result()
            print(*done.result(), sep="\n", file=sys.stderr, flush=True)
    rows = table(tallies)
    print(stamp(), rows, sep="\n\n")
    if given.save:
        save(rows)
    return 0 if all(tally.clean for tally in tallies) else 1
