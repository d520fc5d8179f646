"""Libraries: made, filled by upload and by path, looked at, emptied, deleted; and what is refused on the way."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from sightline.server.services import Services
from sightline.server.uploads import clean_name
from tests.server.stock import error, fill, finished, index, opened, search

Stock = tuple[TestClient, Services]


@pytest.fixture
def stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stock]:
    with opened(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Path]]:
    """An application whose libraries stay as they are: everything asked of it is refused."""
    folder = tmp_path_factory.mktemp("quiet")
    with pytest.MonkeyPatch.context() as patch, opened(folder, patch) as (client, _):
        yield client, folder


def upload(client: TestClient, *files: tuple[str, bytes], library: str = "default", **data: Any) -> Any:
    form = [("files", (name, content)) for name, content in files]
    return client.post(f"/v1/libraries/{library}/items", files=form, data=data)


def made(tmp_path: Path) -> Path:
    return tmp_path / "data" / "sightline" / "libraries"


# --- libraries -------------------------------------------------------------------------------------------------------


def test_the_life_of_a_library(stock: Stock, tmp_path: Path) -> None:
    client, _ = stock
    answer = client.post("/v1/libraries", json={"id": "trip-2024"})
    assert (answer.status_code, answer.json()["id"], answer.json()["usable"]) == (201, "trip-2024", True)
    assert [one["id"] for one in client.get("/v1/libraries").json()["libraries"]] == ["default", "trip-2024"]
    job = upload(client, ("a.txt", b"a red bicycle"), library="trip-2024").json()["job"]
    assert finished(client, job)["indexed"] == 1
    whole = client.get("/v1/libraries/trip-2024").json()
    assert (whole["files"], whole["rows"], whole["kinds"], whole["reranker"]) == (1, 1, {"text": 1}, "toy-reranker")
    assert search(client, "bicycle", library="trip-2024") and not search(client, "bicycle")
    assert client.delete("/v1/libraries/trip-2024").json() == {"id": "trip-2024", "deleted": True}
    assert list(made(tmp_path).iterdir()) == [], "its files are gone too"
    assert error(client.get("/v1/libraries/trip-2024"))[0] == 404
    assert error(client.post("/v1/search", json={"text": "a", "library": "trip-2024"}))[0] == 404
    assert client.post("/v1/libraries", json={"id": "trip-2024"}).status_code == 201
    assert search(client, "bicycle", library="trip-2024") == []


def test_libraries_are_there_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, monkeypatch) as (client, _):
        client.post("/v1/libraries", json={"id": "one"})
        finished(client, upload(client, ("a.txt", b"a red bicycle"), library="one").json()["job"])
    with opened(tmp_path, monkeypatch) as (client, _):
        assert [hit["title"] for hit in search(client, "bicycle", library="one")] == ["a"]


@pytest.mark.parametrize(
    "id",
    [
        *("", "-a", "A", "a b", "a/b", "../a", "a.b", "ä", "a" * 64, "a\n", "CON/", "a\\b", "%2e"),
        5,
        None,
        ["a"],
        {"a": 1},
    ],
    ids=str,
)
def test_names_that_no_library_has(quiet: tuple[TestClient, Path], id: Any) -> None:
    client, folder = quiet
    assert error(client.post("/v1/libraries", json={"id": id}))[0] == 400
    assert [one["id"] for one in client.get("/v1/libraries").json()["libraries"]] == ["default"]
    assert not any(path.name.startswith("index") for path in made(folder).rglob("*"))


def test_names_that_are_taken(stock: Stock) -> None:
    client, _ = stock
    assert error(client.post("/v1/libraries", json={"id": "default"}))[:2] == (409, "exists")
    assert client.post("/v1/libraries", json={"id": "a" * 63}).status_code == 201
    assert error(client.post("/v1/libraries", json={"id": "a" * 63}))[:2] == (409, "exists")


def test_only_what_the_server_made_is_deleted(stock: Stock, tmp_path: Path) -> None:
    client, _ = stock
    index(tmp_path / "library.sightline", fill(tmp_path / "files"))
    assert error(client.delete("/v1/libraries/default"))[:2] == (409, "default")
    assert search(client, "bicycle")
    assert error(client.delete("/v1/libraries/none"))[:2] == (404, "no_library")
    # a link that someone put there leads nowhere
    index(tmp_path / "elsewhere" / "index.sightline", tmp_path / "files")
    made(tmp_path).mkdir(parents=True, exist_ok=True)
    (made(tmp_path) / "linked").symlink_to(tmp_path / "elsewhere")
    assert [one["id"] for one in client.get("/v1/libraries").json()["libraries"]] == ["default"]
    assert error(client.delete("/v1/libraries/linked"))[0] == 404
    assert error(client.get("/v1/libraries/linked"))[0] == 404
    assert error(client.post("/v1/libraries", json={"id": "linked"}))[:2] == (409, "exists")
    assert (tmp_path / "elsewhere" / "index.sightline").is_dir()


def test_a_library_that_is_damaged_is_said_to_be(stock: Stock, tmp_path: Path) -> None:
    client, _ = stock
    client.post("/v1/libraries", json={"id": "bad"})
    (made(tmp_path) / "bad" / "index.sightline" / "sightline.json").write_text('{"format": 1, "embedder": 5}')
    listed = {one["id"]: one for one in client.get("/v1/libraries").json()["libraries"]}
    assert (listed["bad"]["usable"], listed["bad"]["model"]) == (False, "")
    assert listed["default"]["usable"] is True


# --- uploads ---------------------------------------------------------------------------------------------------------


def test_uploads_are_kept_and_found(stock: Stock, tmp_path: Path) -> None:
    client, _ = stock
    answer = upload(
        client,
        ("a.txt", b"a red bicycle"),
        ("a.txt", b"a black cat"),
        columns=json.dumps({"trip": "north", "stars": 5}),
    )
    assert answer.status_code == 202 and answer.json()["files"] == ["a.txt", "a (2).txt"]
    assert finished(client, answer.json()["job"])["indexed"] == 2
    folder = made(tmp_path) / "default" / "files"
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == {
        "a.txt": b"a red bicycle",
        "a (2).txt": b"a black cat",
    }
    again = upload(client, ("a.txt", b"something else"))
    assert again.json()["files"] == ["a (3).txt"] and (folder / "a.txt").read_bytes() == b"a red bicycle"
    finished(client, again.json()["job"])
    hit = search(client, "cat", where={"trip": "north", "stars>=": 5})[0]
    assert client.get(hit["media"]).content in {b"a red bicycle", b"a black cat"}
    item = client.get(hit["media"].removesuffix("/media")).json()
    assert item["columns"] == {"trip": "north", "stars": 5} and item["text"].startswith("a ")
    assert [one["id"] for one in client.get("/v1/libraries").json()["libraries"]] == ["default"]
    assert client.request("DELETE", "/v1/libraries/default/items", json={"paths": [hit["path"]]}).json() == {
        "removed": 1
    }
    assert not Path(hit["path"]).exists(), "an upload that is taken out is deleted"


@pytest.mark.parametrize(
    "name",
    [
        *("../../../../etc/cron.d/evil.txt", "..\\..\\evil.txt", "/etc/passwd", "C:\\Windows\\evil.txt", "..", "."),
        *(".bashrc", "CON", "nul.txt", "COM1.txt", "a\x00b.txt", "a\nb.txt", "\u202egpj.exe", "x" * 400 + ".txt"),
        *("<img src=x onerror=alert(1)>.txt", "a'; DROP TABLE files; --.txt", "日本語.txt", "é" * 200 + ".txt", " "),
        *("a" + "." * 50, "trip/../../x.txt", "a.txt/", "-rf", "~", "$HOME.txt", "%2e%2e%2fx.txt", "a\ufeff.txt"),
    ],
    ids=ascii,
)
def test_names_of_uploads_are_only_names(tmp_path: Path, name: str) -> None:
    clean = clean_name(name)
    assert clean == os.path.basename(clean) and clean not in {"", ".", ".."} and not clean.startswith(".")  # noqa: PTH119
    assert clean.isprintable() and len(clean.encode()) <= 255 and not set(clean) & set('<>:"|?*/\\')
    assert clean.split(".")[0].upper() not in {"CON", "NUL", "COM1"}
    (tmp_path / clean).write_text("it can be written")
    assert clean_name(clean) == clean


def test_hostile_names_through_the_door(stock: Stock, tmp_path: Path) -> None:
    client, _ = stock
    answer = upload(client, ("../../../../../../tmp/evil.txt", b"one"), ("..", b"two"), (".hidden.txt", b"three"))
    assert answer.json()["files"] == ["evil.txt", "upload", "hidden.txt"]
    assert finished(client, answer.json()["job"])["seen"] == 3
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and "evil" in path.name]
    assert outside == [made(tmp_path) / "default" / "files" / "evil.txt"]


def raw(client: TestClient, body: bytes, kind: str = "multipart/form-data; boundary=b") -> Any:
    return client.post("/v1/libraries/default/items", content=body, headers={"Content-Type": kind})


PART = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nwords\r\n'


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (PART, "multipart/form-data; boundary=b"),
        (PART + b"--b", "multipart/form-data; boundary=b"),
        (PART + b"--b--\r\n", "multipart/form-data"),
        (PART + b"--b--\r\n", "multipart/form-data; boundary=other"),
        (PART + b"--b--\r\n", f"multipart/form-data; boundary={'x' * 3000}"),
        (b"--b--\r\n", "multipart/form-data; boundary=b"),
        (b"nonsense", "multipart/form-data; boundary=b"),
        (PART.replace(b'"files"', b'"other"') + b"--b--\r\n", "multipart/form-data; boundary=b"),
        (PART.replace(b'; filename="a.txt"', b"") + b"--b--\r\n", "multipart/form-data; boundary=b"),
        (
            PART.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * 20_000 + b"\r\n\r\n") + b"--b--\r\n",
            "multipart/form-data; boundary=b",
        ),
        (
            PART + b'--b\r\nContent-Disposition: form-data; name="columns"\r\n\r\nno json\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
        (
            PART + b'--b\r\nContent-Disposition: form-data; name="columns"\r\n\r\n{"a": [1]}\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
        (
            PART + b'--b\r\nContent-Disposition: form-data; name="columns"\r\n\r\n{"kind": 1}\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
        (
            PART + b'--b\r\nContent-Disposition: form-data; name="columns"\r\n\r\n' + b"[" * 60_000 + b"\r\n--b--\r\n",
            "multipart/form-data; boundary=b",
        ),
    ],
    ids=range(14),
)
def test_forms_that_are_none_leave_nothing(quiet: tuple[TestClient, Path], body: bytes, kind: str) -> None:
    client, folder = quiet
    assert error(raw(client, body, kind))[0] == 400
    assert [path for path in made(folder).rglob("*") if path.is_file()] == []
    assert client.get("/v1/jobs").json() == {"jobs": []}


def test_too_much_in_one_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, monkeypatch, serve_max_bytes=100_000) as (client, _):
        assert error(upload(client, ("a.txt", b"x" * 200_000)))[0] == 413
        assert error(raw(client, PART + b"--b--\r\n", "text/plain"))[0] == 415
        column = b'--b\r\nContent-Disposition: form-data; name="columns"\r\n\r\n' + b" " * 70_000
        assert error(raw(client, PART + column + b"\r\n--b--\r\n"))[0] == 413
        monkeypatch.setattr("sightline.server.uploads.MOST_FILES", 3)
        assert error(upload(client, *[(f"{number}.txt", b"x") for number in range(4)]))[:2] == (413, "too_many_items")
        assert [path for path in made(tmp_path).rglob("*") if path.is_file()] == []


# --- paths -----------------------------------------------------------------------------------------------------------


def add(client: TestClient, *paths: object, **more: Any) -> Any:
    return client.post("/v1/libraries/default/items", json={"paths": list(paths), **more})


def test_paths_of_ones_own_machine(stock: Stock, tmp_path: Path) -> None:
    client, _ = stock
    folder = fill(tmp_path / "files")
    done = finished(client, add(client, str(folder), columns={"trip": "north"}).json()["job"])
    assert (done["indexed"], done["skipped"]) == (7, 1)
    listed = client.get("/v1/libraries/default/files").json()
    assert listed["total"] == 8 and [Path(one["path"]).name for one in listed["files"]] == sorted(
        path.name for path in folder.iterdir()
    )
    some = client.get("/v1/libraries/default/files?status=done&offset=2&limit=3").json()
    assert (some["total"], len(some["files"])) == (7, 3) and {one["status"] for one in some["files"]} == {"done"}
    assert client.get("/v1/libraries/default/files", params={"under": str(folder / "cat.txt")}).json()["total"] == 1
    for query in ("limit=0", "limit=-1", "limit=9999999999", "offset=-1", "offset=1e9", "status=nothing"):
        assert error(client.get(f"/v1/libraries/default/files?{query}"))[0] == 400, query
    page = next(hit for hit in search(client, "rivers") if hit["kind"] == "page")
    item = client.get(page["media"].removesuffix("/media")).json()
    assert item["text"] == "Rivers of the north" and item["columns"] == {"trip": "north"} and item["page"] == 1
    removed = client.request("DELETE", "/v1/libraries/default/items", json={"paths": [str(folder)]}).json()
    assert removed == {"removed": 8} and (folder / "cat.txt").exists(), "originals stay"
    assert search(client, "rivers") == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"paths": []}, "paths"),
        ({"paths": ["relative.txt"]}, "paths.0"),
        ({"paths": [""]}, "paths.0"),
        ({"paths": ["/nothing/is/here"]}, "paths.0"),
        ({"paths": ["/" + "x" * 5_000]}, "paths.0"),
        ({"paths": "/tmp"}, "paths"),
        ({"paths": [5]}, "paths.0"),
        ({}, "paths"),
        ({"paths": ["/"], "more": 1}, "more"),
        ({"paths": ["/etc"], "columns": {"a": [1]}}, None),
        ({"paths": ["/etc/hostname"], "columns": {"kind": "x"}}, None),
        ({"paths": ["/etc/hostname"], "columns": {"a b": "x"}}, None),
    ],
    ids=str,
)
def test_paths_that_are_none(quiet: tuple[TestClient, Path], body: dict[str, Any], param: str | None) -> None:
    client, _ = quiet
    found = error(client.post("/v1/libraries/default/items", json=body))
    assert found[0] == 400 and (param is None or found[2] == param)
    assert client.get("/v1/jobs").json() == {"jobs": []}


def test_columns_keep_their_type(stock: Stock, tmp_path: Path) -> None:
    client, _ = stock
    (tmp_path / "a.txt").write_text("words")
    finished(client, add(client, str(tmp_path / "a.txt"), columns={"stars": 5}).json()["job"])
    assert error(add(client, str(tmp_path / "a.txt"), columns={"stars": "many"}))[0] == 400


def test_only_from_the_folders_of_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "insider"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.txt").write_text(f"words {folder.name}")
    (inside / "out").symlink_to(outside)
    (inside / "out.txt").symlink_to(outside / "a.txt")
    with opened(tmp_path, monkeypatch, serve_roots=f"{inside}, /nothing") as (client, _):
        for path in (
            outside,
            outside / "a.txt",
            inside / "out",
            inside / "out.txt",
            f"{inside}/../insider",
            "/etc",
            "~",
        ):
            assert error(add(client, str(path)))[:2] == (403, "path_not_allowed"), path
        assert error(add(client, str(inside), str(outside)))[2] == "paths.1"
        assert finished(client, add(client, str(inside)).json()["job"])["indexed"] == 1, "links are not followed"


def test_with_keys_and_without_roots_there_are_only_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("words")
    with opened(tmp_path, monkeypatch, serve_keys="a-very-long-secret-key-of-ours") as (client, _):
        client.headers["Authorization"] = "Bearer a-very-long-secret-key-of-ours"
        assert error(add(client, str(tmp_path / "a.txt")))[:2] == (403, "paths_off")
        assert error(add(client, "/nothing/here"))[:2] == (403, "paths_off"), "it does not say what is there"
        assert upload(client, ("a.txt", b"words")).status_code == 202


# --- hostile names (F1) ----------------------------------------------------------------------------------------------

NAMES = [
    *("it's", "'", "''", "' OR '1'='1", "'; DROP TABLE items; --", '"', "a\\b", "\\", "%", "_", "a%b", "*", "?", "[a]"),
    *(
        "a\nb",
        "a\tb",
        " lead",
        "trail ",
        "日本",
        "é",
        "e\u0301",
        "\u202ertl",
        "<img src=x onerror=alert(1)>",
        "${x}",
        "{{7*7}}",
    ),
]


def test_hostile_names_are_only_themselves(stock: Stock, tmp_path: Path) -> None:
    """Each name finds, lists and removes exactly the rows of its own folder."""
    client, _ = stock
    root = tmp_path / "names"
    for number, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        (root / name / "note.txt").write_text(f"the common words and number{number}")
    assert finished(client, add(client, str(root)).json()["job"])["indexed"] == len(NAMES)
    column = {}
    for name in NAMES:
        folder = str(root / name)
        hits = search(client, "common words", where={"path": folder}, k=100)
        assert [hit["path"] for hit in hits] == [f"{folder}/note.txt"], name
        listed = client.get("/v1/libraries/default/files", params={"under": folder}).json()
        assert [one["path"] for one in listed["files"]] == [f"{folder}/note.txt"], name
        column[name] = hits[0]["id"]
    assert len(set(column.values())) == len(NAMES)
    left = len(NAMES)
    for name in NAMES[::2]:
        removed = client.request("DELETE", "/v1/libraries/default/items", json={"paths": [str(root / name)]})
        left -= 1
        assert removed.json() == {"removed": 1}, name
    assert client.get("/v1/libraries/default").json()["rows"] == left
    found = {hit["path"] for hit in search(client, "common words", k=100)}
    assert found == {f"{root / name}/note.txt" for name in NAMES[1::2]}


def test_hostile_values_of_columns(stock: Stock, tmp_path: Path) -> None:
    client, _ = stock
    for number, name in enumerate(NAMES):
        path = tmp_path / f"{number}.txt"
        path.write_text(f"the common words and number{number}")
        answer = add(client, str(path), columns={"mark": name})
        assert answer.status_code == 202
        job = answer.json()["job"]
    finished(client, job)
    end = time.monotonic() + 120
    while client.get("/v1/libraries/default").json()["rows"] < len(NAMES) and time.monotonic() < end:
        time.sleep(0.1)
    for number, name in enumerate(NAMES):
        hits = search(client, "common words", where={"mark": name}, k=100)
        assert [Path(hit["path"]).name for hit in hits] == [f"{number}.txt"], name
        assert len(search(client, "common words", where={"mark!=": name}, k=100)) == len(NAMES) - 1
