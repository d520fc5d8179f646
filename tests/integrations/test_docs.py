"""The Python code of docs/integrations.md runs, from top to bottom, as a reader would run it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_code_of_the_page_runs(capsys, tmp_path, monkeypatch) -> None:
    for package in ("langchain_core", "llama_index.core", "haystack", "mteb", "mcp"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    names["library"].close()  # type: ignore[attr-defined]
    said = capsys.readouterr().out
    assert "a red bicycle" in said and "bicycle.txt" in said and "sightline/builtin" in said


def test_every_adapter_has_its_place_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    modules = Path(sys.modules["sightline"].__file__ or "").parent / "integrations"
    for path in modules.glob("[a-z]*.py"):
        assert f"sightline.integrations.{path.stem}" in text
