"""A home of its own for every test, toys instead of models, and a few files."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result


def load_file(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


toys = load_file("sightline_cli_toys", Path(__file__).parent / "toys.py")

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """HOME and the data folder in the test's own folder; no setting from outside."""
    for name in [name for name in os.environ if name.startswith("SIGHTLINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The program in this process, with toys."""
    from sightline.cli.app import app

    toys.install(patch=monkeypatch.setattr)

    def invoke(*arguments: object, input: str | None = None) -> Result:
        return CliRunner().invoke(app, [str(one) for one in arguments], input=input, prog_name="sightline")

    return invoke


def json_of(result: Result) -> Any:
    """The one JSON document on standard output."""
    return json.loads(result.stdout)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder of six files: two texts, two pictures, one empty, one torn."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "bicycle.txt").write_text("A red bicycle leans on the wall.\n")
    (folder / "bread.md").write_text("# Bread\n\nFlour, water, salt and time.\n")
    for name, colour in (("rot.png", (220, 10, 10)), ("blau.png", (10, 10, 220))):
        Image.fromarray(np.full((64, 64, 3), colour, np.uint8)).save(folder / name)
    (folder / "empty.jpg").touch()
    (folder / "torn.png").write_bytes((folder / "rot.png").read_bytes()[:40])
    return folder
