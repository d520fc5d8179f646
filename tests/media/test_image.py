"""Pictures: every mode becomes RGB, upright, on white; what is too big or broken is an error of ours."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from sightline.media import image
from sightline.settings import Settings


def photo(width=96, height=64):
    """A smooth picture that differs in every corner."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)


def saved(picture, format, **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def near(found, expected, most=3.0):
    return found.shape == expected.shape and float(np.abs(found.astype(int) - expected.astype(int)).mean()) < most


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "JPEG", "WEBP", "AVIF"])
def test_formats(format, settings, tmp_path):
    data = saved(Image.fromarray(photo()), format)
    path = tmp_path / "named.txt"
    path.write_bytes(data)
    for given in (data, path, str(path), bytearray(data)):
        found = image.decode(given, settings)
        assert found.dtype == np.uint8 and near(found, photo())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "L", "CMYK", "YCbCr", "I;16", "I", "F", "LAB"])
def test_modes(mode, settings):
    grey = mode in {"LA", "1", "L", "I;16", "I", "F"}
    expected = photo()
    if grey:
        expected = np.repeat(np.array(Image.fromarray(photo()).convert("L"))[..., None], 3, 2)
    values = expected[..., 0]
    if mode == "I;16":
        picture = Image.fromarray(values.astype(np.uint16) * 257)
    elif mode == "I":
        picture = Image.fromarray(values.astype(np.int32) * 257)
    elif mode == "F":
        picture = Image.fromarray(values.astype(np.float32) / 255)
    elif mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(Image.fromarray(photo()), srgb, lab, outputMode="LAB")
        assert converted is not None
        picture = converted
    else:
        picture = Image.fromarray(photo()).convert(mode)
    found = image.decode(saved(picture, "TIFF"), settings)
    # dithered black and white is compared by its mean
    if mode == "1":
        assert abs(float(found.mean()) - float(expected.mean())) < 5 and set(np.unique(found)) == {0, 255}
    else:
        assert near(found, expected, 30.0 if mode == "P" else 6.0)
    assert near(image.decode(picture, settings), found, 1.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 128, 255], [0, 128, 255]),
        ([0, 2048, 4095], [0, 128, 255]),
        ([0, 32768, 65535], [0, 128, 255]),
        ([0, 50_000, 100_000], [0, 128, 255]),
        ([-10, 0, 10], [0, 128, 255]),
    ],
)
def test_wide_integers_are_scaled(values, expected, settings):
    found = image.decode(saved(Image.fromarray(np.array([values], np.int32)), "TIFF"), settings)
    assert np.abs(found[0, :, 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 128.0, 255.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([np.nan, 0.5, 1.0], [0, 128, 255]),
        ([np.inf, 0.0, 1.0], [255, 0, 255]),
        ([np.nan, np.nan, np.nan], [0, 0, 0]),
    ],
)
def test_floats_are_scaled(values, expected, settings):
    found = image.decode(saved(Image.fromarray(np.array([values], np.float32)), "TIFF"), settings)
    assert np.abs(found[0, :, 0].astype(int) - expected).max() <= 1


def test_transparency_is_on_white(settings):
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert (image.decode(saved(clear, "PNG"), settings) == 255).all()
    assert np.abs(image.decode(saved(half, "PNG"), settings).astype(int) - 127).max() <= 1
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert (image.decode(saved(palette, "PNG", transparency=0), settings) == 255).all()
    assert (image.decode(saved(Image.new("LA", (4, 4), (0, 0)), "PNG"), settings) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture(orientation, settings):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.fromarray(photo())
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    turned = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    assert near(image.decode(saved(turned, "JPEG", exif=exif, quality=95), settings), photo())
    assert near(image.decode(saved(turned, "PNG", exif=exif), settings), photo(), 0.1)


@pytest.mark.parametrize(
    "exif", [b"Exif\x00\x00", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\x00\x00" + b"\xff" * 99, b"xx"]
)
def test_broken_exif_is_ignored(exif, settings):
    assert near(image.decode(saved(Image.fromarray(photo()), "JPEG", exif=exif), settings), photo())


def test_exif_that_is_no_number(settings):
    exif = Image.Exif()
    exif[0x0112] = 9
    assert near(image.decode(saved(Image.fromarray(photo()), "PNG", exif=exif), settings), photo(), 0.1)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_several_pictures(format, settings):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert (image.decode(data, settings) == (255, 0, 0)).all()
    assert image.num_frames(data, settings) == 3


def test_multi_picture_jpeg(settings):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert near(image.decode(data, settings), np.full((16, 16, 3), (254, 0, 0), np.uint8))


def test_a_hundred_thousand_frames_are_not_looked_at(settings):
    data = saved(Image.new("P", (1, 1)), "GIF")
    body = data[13 + 3 * 2 ** ((data[10] & 7) + 1) : -1]
    assert image.decode(data[: -1 - len(body)] + body * 100_000 + b";", settings).shape == (1, 1, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_is_corrupt_every_time(format, share, settings, code):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = saved(Image.fromarray(noise), format)
    cut = data[: int(len(data) * share)]
    assert [code(image.decode, cut, settings) for _ in range(2)] == ["corrupt"] * 2


def png_of(width, height):
    """A PNG that declares a size, with rows of zeros: a bomb of some kilobytes."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\x00" * (width // 8 + 2)
    packed = zlib.compressobj(9)
    body = b"".join(packed.compress(row) for _ in range(min(height, 20_000))) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (13_000, 13_000), (30_001, 1), (8001, 8000)])
def test_bombs(width, height, settings, code):
    import tracemalloc

    data = png_of(width, height)
    tracemalloc.start()
    assert code(image.decode, data, settings) == "too_large"
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


def test_the_bomb_warning_is_an_error_and_filters_are_left_alone(code, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    before = list(warnings.filters)
    assert code(image.decode, png_of(12, 12), Settings()) == "too_large"
    assert warnings.filters == before


def test_inflated_text_chunks_are_bounded(settings, code):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    data = png_of(8, 8)
    bomb = chunk(b"zTXt", b"a\x00\x00" + zlib.compress(bytes(50 * 2**20), 9))
    assert code(image.decode, data[:33] + bomb + data[33:], settings) == "corrupt"


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 2), (27, 27), (30_000, 1), (1, 30_000)])
def test_small_and_thin(width, height, settings):
    assert image.decode(saved(Image.new("RGB", (width, height)), "PNG"), settings).shape == (height, width, 3)


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", b"PK\x03\x04", b"\x7fELF", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0"],
)
def test_what_is_no_picture(data, settings, code):
    assert code(image.decode, data, settings) in {"empty", "not_media", "corrupt"}


def test_no_error_text_of_a_decoder_gets_out(settings):
    with pytest.raises(Exception) as caught:
        image.decode(b"\x89PNG\r\n\x1a\nbroken", settings)
    assert str(caught.value) == "the file is damaged and cannot be decoded [corrupt]"
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_heic_names_its_extra(settings, code):
    data = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64)
    assert code(image.decode, data, settings) in {"unsupported", "corrupt"}


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
def test_arrays(shape, settings):
    found = image.decode(np.full(shape, 255, np.uint8), settings)
    assert found.shape == (4, 5, 3) and (found == 255).all()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 5, 2), np.uint8),
        np.zeros((4, 5), float),
        np.zeros((0, 5), np.uint8),
        np.zeros(4, np.uint8),
        5,
        None,
    ],
)
def test_other_arrays_are_refused(array, settings, code):
    assert code(image.decode, array, settings) == "not_media"


def test_resize_is_pillow_bicubic():
    expected = np.array(Image.fromarray(photo()).resize((32, 48), Image.Resampling.BICUBIC))
    assert (image.resize(photo(), 48, 32) == expected).all()
    assert image.resize(photo(), 64, 96).shape == (64, 96, 3)


def test_shrink_and_jpeg():
    big = np.zeros((400, 1000, 3), np.uint8)
    small = image.shrink(big, 100_000)
    assert small.shape[0] * small.shape[1] <= 100_000 and abs(small.shape[1] / small.shape[0] - 2.5) < 0.02
    assert image.shrink(big, 400_000) is big
    with Image.open(io.BytesIO(image.encode_jpeg(photo(), 32))) as thumbnail:
        assert thumbnail.format == "JPEG" and max(thumbnail.size) == 32 and not thumbnail.getexif()


def test_threads_decode_together(settings):
    from concurrent.futures import ThreadPoolExecutor

    data = saved(Image.fromarray(photo()), "PNG")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: image.decode(data, settings).sum(), range(200)))
    assert len(set(found)) == 1
    assert warnings.filters == before
