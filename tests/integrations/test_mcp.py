"""The MCP server, driven by the SDK's own client: in memory, over stdio and over HTTP."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from PIL import Image

from sightline import Library
from sightline.errors import ConfigError
from sightline.integrations import mcp as ours

mcp = pytest.importorskip("mcp", reason="the extra mcp is not installed")
ROOT = Path(__file__).parents[2]


def call(where: Any, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """Results of tools called one after another over one connection."""

    async def talk() -> list[Any]:
        async with mcp.Client(where) as client:
            return [await client.call_tool(name, arguments) for name, arguments in calls]

    return anyio.run(talk)


def hits(result: Any) -> list[dict[str, Any]]:
    assert not result.is_error, result.content
    found: list[dict[str, Any]] = result.structured_content["hits"]
    return found


def test_the_tools_say_what_they_take_and_that_they_only_read(library: Library) -> None:
    async def talk() -> Any:
        async with mcp.Client(ours.server(library)) as client:
            return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in anyio.run(talk)}
    assert set(tools) == set(ours.NAMES)
    assert all(tool.annotations.read_only_hint for tool in tools.values())
    assert tools["search"].input_schema["required"] == ["query"]
    assert set(tools["search"].input_schema["properties"]) == {"query", "kind", "path", "k"}
    assert "by meaning" in tools["search"].description


def test_search_gives_citations_that_show_opens(library: Library) -> None:
    served = ours.server(library)
    (found,) = call(served, ("search", {"query": "a red bicycle", "k": 2}))
    best, *rest = hits(found)
    assert len(rest) == 1
    assert best["path"].endswith("bicycle.txt") and best["kind"] == "text"
    assert best["snippet"] == "A red bicycle leans on the wall." and 0 <= best["score"] <= 1
    assert json.loads(found.content[0].text)["hits"][0]["citation"] == best["citation"], (
        "also for clients without schemas"
    )
    (shown,) = call(served, ("show", {"citation": best["citation"]}))
    caption, passage = shown.content
    assert best["citation"] in caption.text and "bicycle.txt" in caption.text
    assert passage.text.strip() == "A red bicycle leans on the wall."


@pytest.mark.parametrize(
    ("kind", "name", "colour"),
    [
        ("image", "blau.png", (10, 10, 220)),
        ("page", "green.pdf", (10, 160, 10)),
        ("moment", "yellow.mp4", (230, 220, 20)),
    ],
)
def test_show_gives_pages_pictures_and_frames_as_images(library: Library, kind, name, colour) -> None:
    served = ours.server(library)
    where = {"query": "anything", "kind": kind, "k": 5}
    cited = next(hit for hit in hits(call(served, ("search", where))[0]) if hit["path"].endswith(name))
    assert cited["kind"] == kind
    caption, image, *_ = call(served, ("show", {"citation": cited["citation"]}))[0].content
    assert name in caption.text and image.mime_type == "image/jpeg"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image.data))).convert("RGB"), np.float64)
    assert max(pixels.shape) <= ours.SHOWN_SIDE
    assert np.abs(pixels.mean((0, 1)) - colour).max() < 25
    if kind == "page":
        assert cited["page"] == 1 and "page 1" in caption.text
    if kind == "moment":
        assert cited["start_s"] == 0.0 and "0.0 to" in caption.text


def test_search_can_be_narrowed_to_a_kind_and_a_folder(library: Library, shelf: Path) -> None:
    served = ours.server(library)
    pictures, one, none = call(
        served,
        ("search", {"query": "red", "kind": "image"}),
        ("search", {"query": "red", "path": str(shelf / "bread.md")}),
        ("search", {"query": "red", "path": "/nowhere"}),
    )
    assert {hit["kind"] for hit in hits(pictures)} == {"image"}
    assert [Path(hit["path"]).name for hit in hits(one)] == ["bread.md"]
    assert hits(none) == []


def test_index_status_counts_and_names_what_could_not_be_indexed(library: Library, shelf: Path) -> None:
    (result,) = call(ours.server(library), ("index_status", {}))
    status = result.structured_content
    assert status["files"] == 6 and status["skipped"] == 1 and status["model"] == "toy"
    assert status["kinds"]["image"] == 2 and status["kinds"]["page"] == 1
    assert status["folders"] == [str(shelf)]
    assert [Path(one["path"]).name for one in status["not_indexed"]] == ["torn.png"]


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("search", {"query": "  "}, "empty"),
        ("search", {"query": "red", "k": 0}, "k must be"),
        ("search", {"query": "red", "k": 10**9}, "k must be"),
        ("search", {"query": "red", "kind": "sound"}, "kind"),
        ("search", {}, "query"),
        ("show", {"citation": "nothing"}, "search again"),
        ("show", {"citation": "/etc/passwd"}, "search again"),
        ("show", {"citation": "' OR '1'='1"}, "search again"),
    ],
)
def test_what_cannot_be_answered_is_told_to_the_assistant(library: Library, tool, arguments, words) -> None:
    (result,) = call(ours.server(library), (tool, arguments))
    assert result.is_error and words in result.content[0].text
    assert "Traceback" not in result.content[0].text


def test_a_fault_of_ours_tells_nothing_of_the_machine(library: Library, monkeypatch) -> None:
    monkeypatch.setattr(Library, "search", lambda *_, **__: 1 / 0)
    (result,) = call(ours.server(library), ("search", {"query": "red"}))
    assert result.is_error and "division" not in result.content[0].text


def test_a_file_that_is_gone_is_said_to_be_gone(library: Library, shelf: Path) -> None:
    served = ours.server(library)
    cited = hits(call(served, ("search", {"query": "x", "kind": "page"}))[0])[0]
    (shelf / "green.pdf").unlink()
    (result,) = call(served, ("show", {"citation": cited["citation"]}))
    assert not result.is_error and "cannot be shown any more" in result.content[1].text


def test_over_stdio_in_a_process_of_its_own(library: Library) -> None:
    path = str(library.path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parameters = mcp.StdioServerParameters(
        command=sys.executable, args=[str(Path(__file__).with_name("serve_mcp.py")), path], env=environment
    )
    found, status = call(parameters, ("search", {"query": "a red bicycle", "k": 1}), ("index_status", {}))
    assert hits(found)[0]["path"].endswith("bicycle.txt")
    assert status.structured_content["files"] == 6


# --- HTTP ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def address(library: Library) -> Iterator[str]:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(ours.http_app(library), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < end, "the server did not start"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
    server.should_exit = True
    thread.join(timeout=30)


def test_over_http(address: str) -> None:
    (found,) = call(address, ("search", {"query": "a red bicycle", "k": 1}))
    assert hits(found)[0]["path"].endswith("bicycle.txt")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:8078"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_sites_are_refused(address: str, headers, status) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}).encode()
    usual = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    request = urllib.request.Request(address, body, {**usual, **headers})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    caught.value.close()
    assert caught.value.code == status


def test_only_this_machine_is_listened_on(library: Library) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(ConfigError, match="this machine"):
            ours.run(library, "http", host=host)
    with pytest.raises(ConfigError, match="stdio or http"):
        ours.run(library, "carrier pigeon")  # type: ignore[arg-type]
