"""SECURITY.md promises only what a named test holds, and its limits are the settings."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = re.compile(r"^  `(tests/[\w/]+\.py)(?:::(\w+))?`$", re.MULTILINE)


def promises() -> list[str]:
    """Each promise with the tests under it."""
    promised = PAGE.partition("## What is promised")[2].partition("## Limits")[0]
    return re.split(r"^- ", promised, flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("promise", promises(), ids=lambda text: text[:40])
def test_every_promise_names_a_test_that_exists(promise: str) -> None:
    named = NAMED.findall(promise)
    assert named, f"no test holds this: {promise}"
    for path, name in named:
        source = (ROOT / path).read_text(encoding="utf-8")
        names = {
            node.name
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in names if name else any(one.startswith("test_") for one in names), f"{path} has no {name}"


def test_there_are_promises() -> None:
    assert len(promises()) >= 25
    assert {"## Reporting", "## Limits", "## Out of scope"} <= set(PAGE.splitlines())


def test_the_limits_are_the_settings() -> None:
    found = importlib.util.spec_from_file_location("make_security", ROOT / "docs" / "make_security.py")
    assert found is not None and found.loader is not None
    make = importlib.util.module_from_spec(found)
    found.loader.exec_module(make)
    assert make.page() == PAGE, "run: python docs/make_security.py"
    assert make.limits().count("\n") > 20
