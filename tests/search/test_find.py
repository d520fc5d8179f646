"""Finding files: sorted, each once, nothing opened, nothing followed that should not be (safety.md 4e)."""

import os
import socket
from pathlib import Path

import pytest

from sightline.search.find import Found, count, find
from sightline.types import Skipped


def names(root: Path, *paths: object, **options: object) -> list[str]:
    found = find([str(p) for p in paths] or [str(root)], **options)  # type: ignore[arg-type]
    return [os.path.relpath(one.path, root) for one in found if isinstance(one, Found)]


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_sorted_depth_first_without_hidden_files(tmp_path: Path) -> None:
    for name in ["b.txt", "a/z.txt", "a/b/c.txt", ".hidden", ".git/config", "a.txt", "a/.DS_Store"]:
        write(tmp_path / name)
    assert names(tmp_path) == ["a/b/c.txt", "a/z.txt", "a.txt", "b.txt"]


def test_each_file_once_whatever_is_given(tmp_path: Path) -> None:
    write(tmp_path / "a/b/c.txt")
    given = [tmp_path / "a/b", tmp_path, tmp_path / "a/b/c.txt", tmp_path / "a/../a", tmp_path]
    assert names(tmp_path, *given) == ["a/b/c.txt"]


def test_hidden_files_and_links_are_taken_when_named(tmp_path: Path) -> None:
    hidden = write(tmp_path / ".notes/a.txt")
    (tmp_path / "link.txt").symlink_to(hidden)
    assert names(tmp_path, tmp_path / ".notes", tmp_path, tmp_path / "link.txt") == [".notes/a.txt", "link.txt"]


def test_a_root_inside_a_hidden_folder_is_walked_once(tmp_path: Path) -> None:
    write(tmp_path / ".cache/x/a.txt")
    assert names(tmp_path, tmp_path / ".cache/x", tmp_path / ".cache/x/a.txt") == [".cache/x/a.txt"]


def test_indexes_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "one.sightline/sightline.json")
    write(tmp_path / "one.sightline/other.txt")
    write(tmp_path / "two/file.txt")
    write(tmp_path / "a.txt")
    assert names(tmp_path, leave_out=[tmp_path / "two"]) == ["a.txt"]


def test_links_are_followed_only_when_asked(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside/secret.txt")
    root = tmp_path / "root"
    write(root / "a.txt")
    (root / "file").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    (root / "dangling").symlink_to(tmp_path / "nowhere")
    assert names(root) == ["a.txt"]
    assert names(root, follow_links=True) == ["a.txt", "file", "folder/secret.txt"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    write(tmp_path / "a/file.txt")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "a/self").symlink_to("self")
    found = list(find([tmp_path], follow_links=True))
    assert [os.path.relpath(one.path, tmp_path) for one in found if isinstance(one, Found)] == ["a/file.txt"]
    assert all(one.code == "unreadable" for one in found if isinstance(one, Skipped))


def test_fifos_sockets_and_devices_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.fspath(tmp_path / "socket"))
        found = list(find([tmp_path, "/dev/null"]))
    assert sorted((Path(one.path).name, one.code) for one in found if isinstance(one, Skipped)) == [
        ("null", "not_file"),
        ("pipe.jpg", "not_file"),
        ("socket", "not_file"),
    ]


def test_missing_paths_are_told(tmp_path: Path) -> None:
    (skipped,) = find([tmp_path / "nope"])
    assert isinstance(skipped, Skipped)
    assert (skipped.code, skipped.detail) == ("unreadable", "no such file or folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    write(tmp_path / "shut/a.txt")
    write(tmp_path / "b.txt")
    (tmp_path / "shut").chmod(0)
    try:
        found = list(find([tmp_path]))
    finally:
        (tmp_path / "shut").chmod(0o700)
    assert [type(one) for one in found] == [Found, Skipped]


HOSTILE = [
    b"new\nline.txt",
    b"quo'te\".txt",
    b"\xff\xfe not utf-8.txt",
    b"x" * 251 + b".txt",
    "\u202eright to left.txt".encode(),
    b"<img src=x onerror=alert(1)>.txt",
    b"-rf.txt",
    b"$(touch pwned).txt",
    "e\u0301.txt".encode(),
    "\u00e9.txt".encode(),
    b"C.txt",
    b"c.txt",
    b"%41.txt",
    b" .txt ",
]


def test_names_of_any_bytes(tmp_path: Path) -> None:
    for name in HOSTILE:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    found = list(find([tmp_path]))
    assert [os.fsencode(one.path).rpartition(b"/")[2] for one in found] == sorted(HOSTILE)


def test_names_longer_than_a_path_may_be_are_told(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(20):  # 20 x 251 > 4096
            os.mkdir("d" * 250, dir_fd=descriptor)
            inner = os.open("d" * 250, os.O_RDONLY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        found = list(find([tmp_path]))
    finally:
        os.close(descriptor)
        _remove_deep(tmp_path)
    assert [one.code for one in found if isinstance(one, Skipped)] == ["unreadable"]


def _remove_deep(top: Path) -> None:
    inner = top / ("d" * 250)
    deep = top / "moving"
    while inner.exists():  # bring each level up by one, so that no path is too long
        (inner / ("d" * 250)).rename(deep) if (inner / ("d" * 250)).exists() else None
        inner.rmdir()
        if deep.exists():
            deep.rename(inner)


def test_count(tmp_path: Path) -> None:
    write(tmp_path / "a", "12345")
    os.mkfifo(tmp_path / "pipe")
    assert count([tmp_path]) == (2, 5)
