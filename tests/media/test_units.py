"""One file becomes its units."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.media import units
from sightline.media.units import short_title
from sightline.settings import Settings
from sightline.types import Unit

read: Any = units.units
read_again: Any = units.unit


def test_an_image(tmp_path, settings):
    path = tmp_path / "red bike.JPG"
    Image.new("RGB", (40, 30), "red").save(path)
    (found,) = read(path, settings)
    assert (found.kind, found.title, found.text, found.page) == ("image", "red bike", "", None)
    assert found.pixels.shape == (30, 40, 3)
    assert (read_again(path, "image", None, None, None, settings).pixels == found.pixels).all()


def test_a_big_image_is_made_smaller(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(units, "IMAGE_PIXELS", 10_000)
    Image.new("RGB", (400, 100), "red").save(tmp_path / "a.png")
    (found,) = read(tmp_path / "a.png", settings)
    assert found.pixels.shape == (50, 200, 3)


def test_texts(tmp_path, settings):
    path = tmp_path / "notes.md"
    path.write_text("before\n\n# One\n\nfirst\n\n# Two\n\n" + "second. " * 2000)
    found = list(read(path, settings))
    assert [unit.title for unit in found[:2]] == ["notes", "One"]
    assert {unit.title for unit in found[2:]} == {"Two"} and len(found) > 3
    assert all(unit.kind == "text" and 0 < len(unit.text) <= 8_500 for unit in found)


def test_a_page_and_a_moment_again(tmp_path, settings, make_pdf, make_video):
    path = tmp_path / "a.pdf"
    path.write_bytes(make_pdf(["one", "two"]))
    found = list(read(path, settings))
    again = read_again(path, "page", 2, None, None, settings)
    assert (again.text, again.title, again.page) == ("two", "a p. 2", 2) and (again.pixels == found[1].pixels).all()
    path = make_video("clip.mp4", num=100)
    assert [unit.title for unit in read(path, settings)] == ["clip 0:00–0:08", "clip 0:04–0:10"]


@pytest.mark.parametrize(("kind", "page"), [("page", 1), ("moment", None), ("text", None), ("page", None)])
def test_a_file_that_became_another(kind, page, tmp_path, settings, code):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    assert code(units.unit, tmp_path / "a.png", kind, page, 0.0, 1.0, settings) == "changed"


@pytest.mark.parametrize("text", [" \n\t\n ", "<html><script>x</script></html>"])
def test_no_words(text, tmp_path, settings, code):
    (tmp_path / "a.txt").write_text(text)
    assert code(units.units, tmp_path / "a.txt", settings) == "empty"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("a.jpg", "a"),
        ("two\nlines.jpg", "two lines"),
        ("cafe\u0301.png", "café"),
        ("\u202egpj.exe.jpg", "gpj.exe"),
        ("<img onerror=x>.jpg", "<img onerror=x>"),
        (b"\xff\xfe.jpg", "??"),
        ("x" * 251 + ".png", "x" * 200),
        (".hidden", ".hidden"),
    ],
)
def test_titles_are_fit_for_people(name, title):
    import os

    assert short_title(os.fsdecode(name)) == title


def test_a_wide_text_is_streamed(tmp_path):
    import tracemalloc

    path = tmp_path / "a.txt"
    with path.open("w") as file:
        for number in range(400_000):
            file.write(f"line {number} of a long text without end\n")
    tracemalloc.start()
    count = sum(len(unit.text) for unit in read(path, Settings()) if isinstance(unit, Unit))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > 0.9 * path.stat().st_size and peak < 12 * 2**20


def test_animations_give_their_first_picture(tmp_path, settings):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    (tmp_path / "a.gif").write_bytes(file.getvalue())
    (found,) = read(tmp_path / "a.gif", settings)
    assert found.kind == "image" and (np.asarray(found.pixels) == (255, 0, 0)).all()
