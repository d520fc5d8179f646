"""Thirty-six pictures that have hurt others, each with its stated outcome, through the whole of indexing.

The numbers in the names are those of the cases; every file is made here, but for the last case.
"""

import functools
import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

import sightline
from sightline.settings import Settings
from tests.media.outcome import Desk

MB = 2**20


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    desk = Desk(tmp_path_factory.mktemp("named-images"), sightline.Embedder.load("builtin"))
    yield desk
    desk.close()


def photo(width=96, height=64):
    """A picture that differs in every corner and has an edge."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([x, y, 255 - (x + y) / 2], axis=-1).astype(np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = (250, 40, 30)
    return Image.fromarray(pixels)


def saved(picture, format, **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def noise(side=128):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width, height):
    """A one-bit PNG of this size: some kilobytes, whatever the size."""
    packed = zlib.compressobj(9)
    row = bytes(width // 8 + 2)
    body = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def vector_of(outcome):
    """The vector of the one row of an indexed picture."""
    assert outcome.code == "indexed", outcome.detail
    (row,) = outcome.rows
    assert np.isfinite(row.vector).all()
    assert abs(float(np.linalg.norm(row.vector)) - 1) < 2e-3  # it is stored in half precision
    return row.vector / np.linalg.norm(row.vector)


def likeness(desk, name, data, twin_name, twin):
    return float(vector_of(desk.take(name, data)) @ vector_of(desk.take(twin_name, twin)))


# --- 1-3: truncated


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_01_a_truncated_jpeg_is_corrupt_however_much_is_there(desk, share):
    data = saved(noise(), "JPEG")
    path = desk.write("cut.jpg", data[: int(len(data) * share)])
    assert [desk.index(path).code for _ in range(3)] == ["corrupt"] * 3


# --- 4-5: bombs


@pytest.mark.parametrize("side", [20_000, 13_000])
def test_04_a_bomb_is_too_large_and_takes_no_memory(desk, side):
    data = png_of(side, side)
    assert len(data) < 60_000
    desk.take("first.png", saved(photo(8, 8), "PNG"))  # so that a decoder is there and its own size is known
    idle = desk.take("second.png", saved(photo(9, 9), "PNG"))
    outcome = desk.take("bomb.png", data)
    assert outcome.code == "too_large"
    assert outcome.parent_bytes < 100 * MB
    assert outcome.child_bytes - idle.child_bytes < 100 * MB


# --- 6-10: tiny and thin


@pytest.mark.parametrize("side", [1, 2, 27])
def test_06_a_tiny_picture_is_indexed(desk, side):
    vector_of(desk.take("tiny.png", saved(photo(32, 32).resize((side, side)), "PNG")))


@pytest.mark.parametrize("size", [(30_000, 1), (1, 30_000)])
def test_09_a_line_never_reaches_the_model(desk, size):
    outcome = desk.take("line.png", saved(Image.new("RGB", size, "red"), "PNG"))
    assert outcome.code == "aspect"


# --- 11-15: modes


def test_11_cmyk_is_close_to_its_twin(desk):
    picture = photo()
    data = saved(picture.convert("CMYK"), "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == "CMYK"
    assert likeness(desk, "cmyk.jpg", data, "rgb.png", saved(picture, "PNG")) >= 0.98


def test_12_sixteen_bit_grey_is_close_to_its_twin(desk):
    grey = photo().convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert likeness(desk, "deep.png", saved(deep, "PNG"), "grey.png", saved(grey, "PNG")) >= 0.99


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_13_transparency_is_seen_on_white(desk, mode):
    clear = np.zeros((64, 64), bool)
    clear[:, :32] = True
    if mode == "LA":
        picture = Image.fromarray(np.stack([np.full((64, 64), 90), np.where(clear, 0, 255)], -1).astype(np.uint8), "LA")
        data, ink = saved(picture, "PNG"), (90, 90, 90)
    else:
        picture = Image.fromarray(np.where(clear, 0, 1).astype(np.uint8), "P")
        picture.putpalette([200, 0, 200, 0, 0, 160])
        data, ink = saved(picture, "PNG", transparency=0), (0, 0, 160)
    seen = np.where(clear[..., None], 255, np.array(ink)).astype(np.uint8)
    assert likeness(desk, "clear.png", data, "white.png", saved(Image.fromarray(seen), "PNG")) >= 0.999


def test_14_one_bit_is_indexed(desk):
    vector_of(desk.take("bits.tif", saved(photo().convert("1"), "TIFF", compression="group4")))


def test_15_a_float_tiff_is_close_to_its_twin(desk):
    grey = photo().convert("L")
    numbers = Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
    assert likeness(desk, "numbers.tif", saved(numbers, "TIFF"), "grey.png", saved(grey, "PNG")) >= 0.99


# --- 16-17: EXIF


@pytest.mark.parametrize("orientation", range(2, 9))
def test_16_a_turned_picture_is_its_upright_twin(desk, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    turned = saved(photo().transpose(Image.Transpose(undo)), "PNG", exif=exif)
    assert likeness(desk, "turned.png", turned, "upright.png", saved(photo(), "PNG")) >= 0.999


@pytest.mark.parametrize("exif", [b"Exif\0\0" + b"\xff" * 99, b"Exif\0\0II*\0\xff\xff\xff\xff", b"nonsense", "99"])
def test_17_wrong_exif_is_ignored(desk, exif):
    if exif == "99":
        exif = Image.Exif()
        exif[0x0112] = 99
    data = saved(photo(), "JPEG", exif=exif, quality=95)
    assert likeness(desk, "exif.jpg", data, "plain.jpg", saved(photo(), "JPEG", quality=95)) >= 0.999


# --- 18-21: animations


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_18_of_an_animation_the_first_picture_is_indexed(desk, format):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    lossless = {"lossless": True} if format == "WEBP" else {}
    data = saved(frames[0], format, save_all=True, append_images=frames[1:], **lossless)
    twin = saved(frames[0], "PNG")
    assert likeness(desk, f"moves.{format.lower()}", data, "first.png", twin) >= 0.999


def test_21_a_hundred_thousand_frames_are_not_looked_at(desk):
    data = saved(Image.new("P", (1, 1)), "GIF")
    body = data[13 + 3 * 2 ** ((data[10] & 7) + 1) : -1]
    outcome = desk.take("frames.gif", data[: -1 - len(body)] + body * 100_000 + b";")
    vector_of(outcome)
    assert outcome.cpu_s <= 2


# --- 22-24: formats that need a decoder


def test_22_heic_names_its_extra_or_is_indexed(desk):
    try:
        import pillow_heif
    except ImportError:
        data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(4096)
        outcome = desk.take("phone.heic", data)
        assert outcome.code == "unsupported"
        assert "sightline[heic]" in outcome.detail
        return
    file = io.BytesIO()
    pillow_heif.from_pillow(photo()).save(file)
    vector_of(desk.take("phone.heic", file.getvalue()))


def test_23_avif_is_close_to_its_twin(desk):
    assert likeness(desk, "a.avif", saved(photo(), "AVIF", quality=95), "a.png", saved(photo(), "PNG")) >= 0.98


@pytest.mark.parametrize("data", [b"\xff\x0a" + bytes(range(100)), b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99)])
def test_24_jpeg_xl_is_unsupported(desk, data):
    outcome = desk.take("a.jxl", data)
    assert outcome.code == "unsupported"
    assert "JPEG XL" in outcome.detail


# --- 25: several pictures in one file


@pytest.mark.parametrize("format", ["MPO", "TIFF"])
def test_25_of_several_pictures_the_first_is_indexed(desk, format):
    first, second = photo(), Image.new("RGB", (96, 64), "blue")
    data = saved(first, format, save_all=True, append_images=[second])
    assert likeness(desk, "several.img", data, "first.png", saved(first, "PNG")) >= 0.99


# --- 26-29: what only looks like a picture

SPECIAL = {
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "WMF": b"\xd7\xcd\xc6\x9a" + bytes(400),
    "FITS": b"SIMPLE  =                    T" + b" " * 2850,
    "PSD": b"8BPS\0\x01" + bytes(400),
    "FPX": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    "ICNS": b"icns\0\0\x02\0" + bytes(600),
}


@pytest.mark.parametrize("format", SPECIAL)
@pytest.mark.parametrize("name", ["a.jpg", "a"])
def test_26_rare_formats_under_another_name_are_not_on_the_list(desk, format, name):
    assert desk.take(name, SPECIAL[format]).code == "format_not_allowed"


@pytest.mark.parametrize("name", ["a.svg", "a.jpg", "a"])
@pytest.mark.parametrize(
    "inside",
    [
        b"<script>fetch('http://127.0.0.1:9/')</script>",
        b'<image href="file:///etc/passwd"/>',
        b"<text>&out;</text>",
    ],
)
def test_27_drawings_are_not_rendered(desk, name, inside):
    head = b'<?xml version="1.0"?>\n<!DOCTYPE svg [<!ENTITY out SYSTEM "file:///etc/passwd">]>\n'
    outcome = desk.take(name, head + b'<svg xmlns="http://www.w3.org/2000/svg">' + inside + b"</svg>")
    assert outcome.code == "unsupported"


def test_28_a_png_named_jpg_is_indexed_by_its_bytes(desk):
    data = saved(photo(), "PNG")
    assert likeness(desk, "named.jpg", data, "named.png", data) >= 0.9999


@pytest.mark.parametrize(
    "data",
    [b"<!doctype html><html><body>words</body></html>", b"PK\x03\x04" + bytes(99), b"\x7fELF\x02\x01" + bytes(99)],
)
def test_29_a_page_an_archive_a_program_named_png_are_no_media(desk, data):
    assert desk.take("a.png", data).code == "not_media"


def test_30_nothing_is_empty(desk):
    assert desk.take("a.png", b"").code == "empty"


# --- 31-32: metadata


@functools.cache
def five_hundred_megabytes():
    packed = zlib.compressobj(1)
    return b"".join(packed.compress(bytes(MB)) for _ in range(500)) + packed.flush()


@pytest.mark.parametrize("bomb", ["zTXt", "iCCP", "iTXt"])
def test_31_packed_words_and_profiles_are_bounded(desk, bomb):
    body = five_hundred_megabytes()
    heads = {"zTXt": b"a\0\0", "iCCP": b"a\0\0", "iTXt": b"a\0\x01\0\0\0"}
    data = saved(photo(), "PNG")
    outcome = desk.take("bomb.png", data[:33] + png_chunk(bomb.encode(), heads[bomb] + body) + data[33:])
    assert outcome.code == "corrupt"
    assert outcome.parent_bytes < 100 * MB
    assert outcome.child_bytes < 200 * MB


def exif_loop():
    """EXIF whose directories are all one directory."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, 8) for tag in (0x8769, 0x8825, 0xA005))
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + struct.pack("<H", 3) + entries + struct.pack("<I", 8)


def test_32_a_loop_in_exif_ends(desk):
    data = saved(photo(), "JPEG", quality=95, exif=exif_loop())
    outcome = desk.take("loop.jpg", data)
    assert likeness(desk, "loop.jpg", data, "plain.jpg", saved(photo(), "JPEG", quality=95)) >= 0.999
    assert outcome.cpu_s <= 5


def test_32_a_hundred_megabytes_of_exif_are_refused_at_once(desk):
    segment = exif_loop().ljust(65_533, b"\0")
    head = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    data = saved(photo(), "JPEG")
    outcome = desk.take("exif.jpg", data[:2] + head * 1600 + data[2:])
    assert outcome.code == "too_large"
    assert outcome.cpu_s <= 5


def test_32_as_much_metadata_as_real_pictures_have_is_no_matter(desk):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = saved(
        photo(), "JPEG", quality=95, icc_profile=profile, exif=b"Exif\0\0" + bytes(60_000), comment=b"x" * 9999
    )
    depth = (b"\xff\xe1\xff\xff" + b"http://ns.adobe.com/xmp/extension/\0".ljust(65_533, b"x")) * 80
    vector_of(desk.take("phone.jpg", data[:2] + depth + data[2:]))


# --- 33-36


def test_33_a_jpeg_that_is_also_an_archive_is_a_jpeg(desk):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("evil.py", "print('no')")
    data = saved(photo(), "JPEG")
    assert likeness(desk, "both.jpg", data + file.getvalue(), "one.jpg", data) >= 0.9999


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.cr2", b"II*\0\x10\0\0\0CR\x02\0" + bytes(400)),
        ("a.cr3", b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom" + bytes(400)),
        ("a.orf", b"IIRO\x08\0\0\0" + bytes(400)),
        ("a.rw2", b"IIU\0\x18\0\0\0" + bytes(400)),
        ("a.raf", b"FUJIFILMCCD-RAW 0201" + bytes(400)),
    ],
)
def test_34_camera_raw_is_unsupported(desk, name, data):
    outcome = desk.take(name, data)
    assert outcome.code == "unsupported"
    assert "RAW" in outcome.detail


def test_34_a_raw_file_that_is_a_tiff_shows_its_preview(desk):
    vector_of(desk.take("a.dng", saved(photo(), "TIFF", tiffinfo={50706: b"\x01\x04\0\0"})))


@pytest.mark.parametrize("colour", ["black", "white"])
def test_35_one_colour_has_a_sound_vector(desk, colour):
    vector_of(desk.take("plain.png", saved(Image.new("RGB", (64, 64), colour), "PNG")))


def test_36_files_that_broke_pillow(desk, shared):
    """Each is skipped or indexed, this process lives, and a second and third run try none of them more than twice."""
    folder = shared / "hostile" / "pillow"
    words = ("crash", "oom", "timeout", "bomb")
    files = sorted(path for path in folder.iterdir() if any(word in path.name.lower() for word in words))
    assert len(files) == 50
    outcomes = [desk.index(path) for path in files]
    assert {outcome.code for outcome in outcomes} <= {
        *("indexed", "corrupt", "too_large", "format_not_allowed", "not_media", "unsupported", "binary"),
        *("memory", "timeout", "crash", "aspect", "no_video", "empty"),
    }
    again = [desk.index(path) for path in files]
    wanted = ["unchanged" if one.code == "indexed" else one.code for one in outcomes]
    assert [one.code for one in again] == wanted


def test_the_limits_are_settings():
    defaults = Settings()
    assert (defaults.image_max_pixels, defaults.image_max_side) == (64_000_000, 30_000)
