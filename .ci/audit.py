"""Known weaknesses of the packages that the tests ran with: ``pip-audit`` over constraints.txt, less the exceptions.

    python .ci/audit.py [--all]

``--all`` takes everything installed beside this Python instead. A weakness fails, unless .ci/exceptions.toml names it
with a reason and a day until which that holds. Where nothing can be asked (no network, no pip-audit) it says so and
goes on: whoever works on a train can still check. With ``AUDIT=strict`` in the environment, as a nightly run should
have it, that fails too.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXCEPTIONS = ROOT / ".ci" / "exceptions.toml"
LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Exempt:
    """A known weakness that we live with.

    Attributes:
        id: of the advisory, or one of its aliases.
        package: that has it.
        reason: why it does not reach us.
        until: the day after which somebody has to look again.
    """

    id: str
    package: str
    reason: str
    until: datetime.date


@dataclass(frozen=True, slots=True)
class Weakness:
    """One advisory about one installed package."""

    package: str
    version: str
    ids: tuple[str, ...]
    fixed_in: tuple[str, ...]


def exempt(path: Path = EXCEPTIONS) -> list[Exempt]:
    """The list of exceptions."""
    return [Exempt(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("exception", [])]


def read(report: dict[str, Any]) -> tuple[list[Weakness], int]:
    """The weaknesses in a report of pip-audit, and how many packages were asked about."""
    found, asked = [], 0
    for package in report.get("dependencies", []):
        if "skip_reason" in package:
            continue
        asked += 1
        for one in package.get("vulns", []):
            ids = (one["id"], *one.get("aliases", []))
            found.append(Weakness(package["name"], package["version"], ids, tuple(one.get("fix_versions", []))))
    return found, asked


def open_ones(found: Sequence[Weakness], known: Sequence[Exempt], today: datetime.date) -> list[Weakness]:
    """Weaknesses without an exception that holds today."""
    holds = {(one.package.lower(), one.id) for one in known if one.until >= today}
    return [one for one in found if not any((one.package.lower(), name) in holds for name in one.ids)]


def ask(everything: bool) -> dict[str, Any] | str:
    """The report, or why there is none."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    command += ["--skip-editable"] if everything else ["--requirement", "constraints.txt", "--no-deps", "--disable-pip"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return "no answer in time"
    if "No module named pip_audit" in done.stderr:
        return "pip-audit is not installed"
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return "no network, or no advisories behind this index"
    return report


def main() -> int:
    """Ask, compare, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="everything that is installed, not only what is pinned")
    report = ask(parser.parse_args().all)
    found, asked = ([], 0) if isinstance(report, str) else read(report)
    if not asked:
        why = report if isinstance(report, str) else "no advisories behind this index"
        print(f"audit: NOT DONE, {why}")
        return int(os.environ.get("AUDIT") == "strict")
    bad = open_ones(found, exempt(), datetime.date.today())
    for one in bad:
        fixed = f"; fixed in {', '.join(one.fixed_in)}" if one.fixed_in else ""
        print(f"audit: {one.package} {one.version} has {' = '.join(one.ids)}{fixed}")
    print(f"audit: {asked} packages, {len(found)} known weaknesses, {len(found) - len(bad)} of them exempt")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
