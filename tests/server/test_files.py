"""Pictures and files of hits: only what the index lists, as it was indexed, and nothing of it that a browser would run."""

import io
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from sightline.server.files import Pictures, disposition
from tests.search import corpus
from tests.server.stock import error, fill, index, opened, search

WAYS = ("thumbnail", "preview", "media")


VICTIMS = ("changed", "gone", "swapped", "dropped", "link", "fifo", "folder", "same link")
"""Pictures that a test may spoil."""


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Path]]:
    """A client and the folder of its files. Tests may add files, and spoil the victim that they name."""
    place = tmp_path_factory.mktemp("stocked")
    folder = fill(place / "files")
    for number, name in enumerate(VICTIMS, start=20):
        corpus.picture(folder / f"{name}.png", number)
    make_odd(folder)
    index(place / "library.sightline", folder)
    with pytest.MonkeyPatch.context() as patch, opened(place, patch) as (client, _):
        yield client, folder


def make_odd(folder: Path) -> None:
    """Files that hold more than meets the eye, or something else than their names say."""
    Image.fromarray(np.zeros((900, 1800, 3), np.uint8)).save(folder / "wide.png")
    exif = Image.Exif()
    exif[0x010E] = "<img src=x onerror=alert(1)>"
    exif[0x0112] = 6  # turned: shown upright
    Image.fromarray(np.full((40, 80, 3), 200, np.uint8)).save(folder / "secret.jpg", exif=exif, comment=b"GPS here")
    (folder / "page.html").write_text("<html><script>alert(1)</script><p>dangerous words</p></html>")
    (folder / "image.jpg").write_text("<html><body>disguised words<script>alert(1)</script></body></html>")
    (folder / "movie.mp4").write_text("plain words named as a movie\n" * 30)


def hit_of(client: TestClient, name: str) -> dict[str, Any]:
    return next(hit for hit in search(client, "of the", k=100) if Path(hit["path"]).name == name)


def place_of(hit: dict[str, Any]) -> str:
    return str(hit["media"].removesuffix("/media"))


def picture(answer: Any) -> Image.Image:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    return Image.open(io.BytesIO(answer.content))


# --- pictures --------------------------------------------------------------------------------------------------------


def test_sizes(stocked: tuple[TestClient, Path]) -> None:
    client, _ = stocked
    place = place_of(hit_of(client, "wide.png"))
    assert picture(client.get(f"{place}/thumbnail")).size == (320, 160)
    assert picture(client.get(f"{place}/thumbnail?size=64")).size == (64, 32)
    assert picture(client.get(f"{place}/preview")).size == (1600, 800)
    page = place_of(next(hit for hit in search(client, "rivers") if hit["kind"] == "page"))
    assert max(picture(client.get(f"{page}/preview?size=500")).size) == 500
    for size in ("0", "-1", "15", "100000", "9223372036854775808", "1e9", "x"):
        assert error(client.get(f"{place}/thumbnail?size={size}"))[::2] == (400, "size")


def test_the_middle_of_a_moment(stocked: tuple[TestClient, Path]) -> None:
    client, _ = stocked
    moments = search(client, "of", where="kind=moment", k=9)
    first = next(hit for hit in moments if hit["start_s"] == 0.0)
    small = np.asarray(picture(client.get(first["thumbnail"])))
    large = np.asarray(picture(client.get(first["preview"])))
    # the video shows colour 1 for 4 s and then colour 4 for 4 s: the first frame is of the first, the middle not
    assert np.abs(large.mean(axis=(0, 1)) - corpus.colour(1)).max() < 40
    assert np.abs(small.mean(axis=(0, 1)) - corpus.colour(4)).max() < 40


def test_nothing_of_the_original_but_its_looks(stocked: tuple[TestClient, Path]) -> None:
    client, _ = stocked
    hit = hit_of(client, "secret.jpg")
    for way in ("thumbnail", "preview"):
        answer = client.get(hit[way])
        shown = picture(answer)
        assert not dict(shown.getexif()) and shown.size == (40, 80)
        assert b"onerror" not in answer.content and b"GPS" not in answer.content


def test_a_picture_is_kept_by_its_tag(stocked: tuple[TestClient, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    client, folder = stocked
    hit = hit_of(client, "dropped.png")
    one = client.get(hit["thumbnail"])
    # from now on nothing can be decoded: what comes is kept
    monkeypatch.setattr("sightline.media.pool.DecodePool.unit", lambda *_, **__: pytest.fail("decoded again"))
    assert client.get(hit["thumbnail"]).content == one.content
    tag = one.headers["etag"]
    again = client.get(hit["thumbnail"], headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(hit["thumbnail"], headers={"If-None-Match": '"other"'}).status_code == 200
    (folder / "dropped.png").unlink()
    assert client.get(hit["thumbnail"], headers={"If-None-Match": tag}).status_code == 404, "what is gone is gone"


def test_pictures_have_a_bound() -> None:
    pictures = Pictures(max_bytes=100)
    for number in range(10):
        pictures.put(str(number), bytes(30))
        assert pictures.get("0") is not None or number > 3 or number == 0
        pictures.get("0")
    assert pictures.num_bytes <= 100
    assert pictures.get("0") is not None, "what is asked for stays"
    assert pictures.get("5") is None
    pictures.put("large", bytes(1000))
    assert (pictures.num_bytes, pictures.get("large")) == (0, None)


def test_many_at_once_agree(stocked: tuple[TestClient, Path]) -> None:
    client, _ = stocked
    hit = hit_of(client, "first.png")
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(client.get(hit["thumbnail"]).content)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1


def test_a_text_has_no_picture(stocked: tuple[TestClient, Path]) -> None:
    client, _ = stocked
    place = place_of(hit_of(client, "bike.txt"))
    assert error(client.get(f"{place}/thumbnail"))[:2] == (404, "no_picture")


# --- the files themselves --------------------------------------------------------------------------------------------


def test_downloads(stocked: tuple[TestClient, Path]) -> None:
    client, folder = stocked
    for name in ("bike.txt", "first.png", "paper.pdf"):
        answer = client.get(hit_of(client, name)["media"])
        assert answer.content == (folder / name).read_bytes()
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith(f'attachment; filename="{name}"')
        assert "sandbox" in answer.headers["content-security-policy"]
        assert client.get(hit_of(client, name)["media"], headers={"Range": "bytes=0-1"}).status_code == 200


def test_files_that_a_browser_would_run_are_downloads(stocked: tuple[TestClient, Path]) -> None:
    client, _ = stocked
    names = {Path(hit["path"]).name: hit for hit in search(client, "words", k=100)}
    served = {"page.html", "image.jpg", "movie.mp4"} & set(names)
    assert "page.html" in served
    for name in served:
        answer = client.get(names[name]["media"])
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")


def test_a_video_in_ranges(stocked: tuple[TestClient, Path]) -> None:
    client, folder = stocked
    whole = (folder / "clip.mp4").read_bytes()
    size = len(whole)
    url = hit_of(client, "clip.mp4")["media"]
    answer = client.get(url)
    assert answer.status_code == 200 and answer.content == whole
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-disposition"].startswith("inline")
    for asked, start, end in (
        ("0-99", 0, 100),
        ("100-", 100, size),
        ("-50", size - 50, size),
        ("0-999999999", 0, size),
    ):
        part = client.get(url, headers={"Range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, whole[start:end]), asked
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.headers["content-length"] == str(end - start)
    for asked in (f"bytes={size}-", "bytes=-0", "bytes=0-1,5-6", "bytes=" + ",".join(["0-"] * 10_000)):
        assert error(client.get(url, headers={"Range": asked}))[0] == 416, asked[:30]
    tag = answer.headers["etag"]
    assert client.get(url, headers={"Range": "bytes=0-9", "If-Range": tag}).status_code == 206
    assert client.get(url, headers={"Range": "bytes=0-9", "If-Range": '"old"'}).status_code == 200
    assert client.get(url, headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize(
    "name", ['a"b.txt', "a\nb.txt", "a\r\nSet-Cookie: x=1.txt", "日本.txt", "a;b.txt", "caf\udce9.txt", "\u202egpj.txt"]
)
def test_names_stay_inside_their_header(name: str) -> None:
    header = disposition(f"/a/{name}", inline=False)
    assert header.isascii() and header.isprintable()
    head, plain, coded = header.split("; ")
    assert head == "attachment" and plain.count('"') == 2 and coded.startswith("filename*=UTF-8''")
    assert not set(coded) & set('";\r\n ')


# --- only what the index lists, as it was ----------------------------------------------------------------------------


def asked(client: TestClient, hit: dict[str, Any]) -> set[tuple[int, str | None]]:
    return {error(client.get(f"{place_of(hit)}/{way}"))[:2] for way in WAYS}


def test_a_changed_file(stocked: tuple[TestClient, Path]) -> None:
    client, folder = stocked
    hit = hit_of(client, "changed.png")
    corpus.picture(folder / "changed.png", 2)
    os.utime(folder / "changed.png", (1, 1))
    assert asked(client, hit) == {(409, "changed")}


def test_a_file_that_is_gone(stocked: tuple[TestClient, Path]) -> None:
    client, folder = stocked
    hit = hit_of(client, "gone.png")
    (folder / "gone.png").rename(folder / "elsewhere.png")
    assert asked(client, hit) == {(404, "gone")}


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "same link"])
def test_something_else_in_its_place(stocked: tuple[TestClient, Path], kind: str) -> None:
    client, folder = stocked
    hit = hit_of(client, f"{kind}.png")
    place, other = folder / f"{kind}.png", folder.parent / "outside.png"
    shutil.copy2(place, other)
    place.unlink()
    if "link" in kind:
        if kind == "link":
            corpus.picture(other, 9)
        place.symlink_to(other)
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
    assert asked(client, hit) == {(404, "gone")}


def test_a_folder_on_the_way_becomes_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "files"
    fill(folder / "inner")
    index(tmp_path / "library.sightline", folder)
    with opened(tmp_path, monkeypatch) as (client, _):
        hit = hit_of(client, "first.png")
        assert client.get(hit["media"]).status_code == 200
        (folder / "inner").rename(tmp_path / "outside")
        (folder / "inner").symlink_to(tmp_path / "outside")
        assert asked(client, hit) == {(404, "gone")}


def test_a_swap_while_it_is_decoded(stocked: tuple[TestClient, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline.media.pool import DecodePool

    client, folder = stocked
    hit = hit_of(client, "swapped.png")
    place, true = folder / "swapped.png", folder.parent / "true.png"
    decode = DecodePool.unit

    def swapped(self: DecodePool, *args: Any, **options: Any) -> Any:
        place.rename(true)
        place.symlink_to(folder / "second.png")
        unit = decode(self, *args, **options)
        place.unlink()
        true.rename(place)
        return unit

    monkeypatch.setattr(DecodePool, "unit", swapped)
    assert error(client.get(hit["thumbnail"]))[0] == 409


def test_links_are_followed_where_the_owner_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline.library import Library
    from sightline.settings import Settings
    from tests.cli.toys import Seeing

    real = fill(tmp_path / "real")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "inner").symlink_to(real)
    settings = Settings(follow_links=True)
    with Library.open(tmp_path / "library.sightline", embedder=Seeing(model="toy"), settings=settings) as library:
        library.add([tmp_path / "files"])
    with opened(tmp_path, monkeypatch, follow_links=True) as (client, _):
        assert client.get(hit_of(client, "first.png")["thumbnail"]).status_code == 200


HOSTILE = [
    *("../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%252e%252e%252fetc"),
    *("..\\..\\etc\\passwd", "/etc/passwd", "%2fetc%2fpasswd", "a%00b", "CON", "x" * 1_500, "' OR 1=1 --"),
    *("%F0%9F%92%A9", "0" * 31, "0" * 33, "G" * 32, "0" * 32, "*", "~root", "%0d%0aSet-Cookie:x"),
]


@pytest.mark.parametrize("id", HOSTILE, ids=lambda id: id[:20])
def test_no_id_is_a_path(stocked: tuple[TestClient, Path], id: str) -> None:
    client, _ = stocked
    for way in WAYS:
        answer = client.get(f"/v1/libraries/default/items/{id}/{way}")
        assert answer.status_code in {400, 404} and "root:" not in answer.text
        answer = client.get(f"/v1/libraries/{id}/items/{'0' * 32}/{way}")
        assert answer.status_code in {400, 404}
    for url in (
        f"/v1/libraries/default/items/{id}",
        f"/v1/libraries/{id}",
        f"/v1/libraries/{id}/files",
        f"/v1/jobs/{id}",
    ):
        assert client.get(url).status_code in {400, 404}, url
    assert client.delete(f"/v1/libraries/{id}").status_code in {400, 404, 405}


def test_the_id_of_another_library(stocked: tuple[TestClient, Path]) -> None:
    client, _ = stocked
    hit = hit_of(client, "first.png")
    client.post("/v1/libraries", json={"id": "other"})
    for way in WAYS:
        assert error(client.get(f"/v1/libraries/other/items/{hit['id']}/{way}"))[:2] == (404, "no_item")


def test_an_index_that_names_foreign_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path in an index is no right to the file: a crooked one, or one the ledger does not list, is not opened."""
    from sightline.library import Library
    from sightline.store.schema import Row, path_id
    from tests.cli.toys import Seeing

    folder = fill(tmp_path / "files")
    index(tmp_path / "library.sightline", folder)
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    crooked = f"{folder}/../secret.txt"
    with Library.open(tmp_path / "library.sightline", embedder=Seeing(model="toy")) as library:
        vector = np.eye(64, dtype=np.float32)[1]
        for id, path in (("a" * 32, str(secret)), ("b" * 32, crooked)):
            library._store.add([Row(id=id, path_id=path_id(path), path=path, kind="image", vector=vector)])
        status = secret.stat()
        library._ledger.begin(crooked, status.st_size, status.st_mtime_ns, "hash")
        library._ledger.done(crooked, 1)
    with opened(tmp_path, monkeypatch) as (client, _):
        for id in ("a" * 32, "b" * 32):
            for way in WAYS:
                assert error(client.get(f"/v1/libraries/default/items/{id}/{way}"))[:2] == (404, "gone")
