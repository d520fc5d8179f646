"""Without its package an adapter says which extra brings it."""

from __future__ import annotations

import importlib
import sys

import pytest

from sightline.errors import MissingExtraError


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llamaindex", "llama_index", "llamaindex"),
        ("haystack", "haystack", "haystack"),
        ("mteb", "mteb", "eval"),
    ],
)
def test_the_extra_is_named(monkeypatch, module, package, extra) -> None:
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"sightline.integrations.{module}", raising=False)
    with pytest.raises(MissingExtraError) as caught:
        importlib.import_module(f"sightline.integrations.{module}")
    assert caught.value.extra == extra


def test_the_extra_of_the_mcp_server_is_named_when_it_is_made(monkeypatch) -> None:
    from sightline.integrations import mcp

    monkeypatch.setitem(sys.modules, "mcp.server", None)
    with pytest.raises(MissingExtraError) as caught:
        mcp.server(None)  # type: ignore[arg-type]
    assert caught.value.extra == "mcp"
