"""Where packages come from: floors that are above known weaknesses, and an audit that does not cry wolf nor sleep."""

import datetime
import importlib.util
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LEAST = {
    "pillow": (13, 0, 0),  # heap overflow in the JPEG decoder, CVE-2026-112403
    "starlette": (1, 3, 1),  # Host that rewrites the path, CVE-2026-48710; quadratic Range, CVE-2025-62727
    "torch": (2, 6),  # CVE-2025-32434
    "transformers": (5, 3),  # CVE-2026-5241
    "python-multipart": (0, 0, 18),  # CVE-2024-53981
    "ray": (2, 54),  # CVE-2026-27482, and keys by token
}


def tool(name: str) -> ModuleType:
    """A script of .ci as a module."""
    found = importlib.util.spec_from_file_location(f"ci_{name}", ROOT / ".ci" / f"{name}.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # its dataclasses look for it there
    found.loader.exec_module(module)
    return module


audit, lowest = tool("audit"), tool("lowest")


def requirements() -> list[str]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    return [one for one in (*project["dependencies"], *extras) if not one.startswith("sightline[")]


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+", maxsplit=1)[0].split(".") if part.isdigit())


@pytest.mark.parametrize("requirement", requirements())
def test_every_dependency_has_a_floor_above_what_is_known(requirement: str) -> None:
    found = lowest.FLOOR.match(requirement)
    assert found is not None, f"{requirement} has no floor"
    assert numbers(found["version"]) >= LEAST.get(found["name"], (0,)), f"{requirement} allows a weakness"


def test_the_store_is_pinned() -> None:
    """Its files outlive a release of it."""
    assert {"lancedb==0.40.0", "pylance==14.0.2"} <= set(requirements())


@pytest.mark.parametrize("name", LEAST)
def test_what_runs_here_is_above_the_floor(name: str) -> None:
    try:
        assert numbers(version(name)) >= LEAST[name]
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed here")


def test_what_is_pinned_meets_the_floors() -> None:
    pinned = lowest.pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    for name, floor in lowest.floors((ROOT / "pyproject.toml").read_text(encoding="utf-8")).items():
        assert numbers(pinned.get(name, floor)) >= numbers(floor), name


def report(*vulns: dict[str, Any]) -> dict[str, Any]:
    return {"dependencies": [{"name": "pillow", "version": "12.0.0", "vulns": list(vulns)}]}


BAD = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["13.0.0"]}
TODAY = datetime.date(2026, 11, 21)


def test_a_weakness_needs_an_exception_that_still_holds() -> None:
    found, asked = audit.read(report(BAD))
    assert asked == 1 and found[0].ids == ("PYSEC-1", "CVE-1")
    late, held = datetime.date(2026, 11, 20), datetime.date(2026, 11, 21)
    for known, left in (
        ([], 1),
        ([audit.Exempt("CVE-1", "Pillow", "not reached", held)], 0),
        ([audit.Exempt("CVE-1", "Pillow", "not reached", late)], 1),
        ([audit.Exempt("CVE-1", "torch", "not reached", held)], 1),
        ([audit.Exempt("CVE-2", "Pillow", "not reached", held)], 1),
    ):
        assert len(audit.open_ones(found, known, TODAY)) == left


def test_every_exception_says_why() -> None:
    assert all(len(one.reason) > 20 and one.id and one.package for one in audit.exempt())


@pytest.mark.parametrize(
    ("answer", "said", "code"),
    [
        ("pip-audit is not installed", "NOT DONE", 0),
        ({"dependencies": [{"name": "pillow", "skip_reason": "not found"}]}, "NOT DONE", 0),
        (report(), "1 packages, 0 known", 0),
        (report(BAD), "PYSEC-1 = CVE-1; fixed in 13.0.0", 1),
    ],
)
def test_an_audit_that_could_not_be_done_says_so_and_is_no_success(
    answer: Any, said: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["audit.py"])
    monkeypatch.setattr(audit, "ask", lambda everything: answer)
    monkeypatch.delenv("AUDIT", raising=False)
    assert audit.main() == code
    assert said in capsys.readouterr().out
    monkeypatch.setenv("AUDIT", "strict")
    assert audit.main() == (1 if said == "NOT DONE" else code)
