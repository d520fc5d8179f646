"""Makes a folder of small files of every kind. Used by tests through ``runpy.run_path``; needs Pillow and PyAV."""

import colorsys
from pathlib import Path

import numpy as np

WORDS = "red green blue bicycle car cat dog river mountain paper night day wheel roof 自行车 자전거 音楽 café".split()  # noqa: SIM905


def make(folder: Path, num: int) -> None:
    """``num`` files, the same every time: of ten, six texts, two pictures, one PDF, one video or copy by turns."""
    for number in range(num):
        place = folder / f"part-{number % 7}"
        place.mkdir(parents=True, exist_ok=True)
        kind = number % 10
        if kind < 6:
            words = " ".join(
                WORDS[(number * 7 + step * (number % 5 + 1)) % len(WORDS)] for step in range(number % 90 + 3)
            )
            (place / f"note-{number}.txt").write_text(f"Note {number}.\n\n{words}\n", encoding="utf-8")
        elif kind < 8:
            picture(place / f"picture-{number}.png", number)
        elif kind == 8:
            pdf(place / f"paper-{number}.pdf", [f"Paper {number}, page {page}" for page in range(1, number % 4 + 2)])
        elif number % 20 == 9:
            video(place / f"clip-{number}.mp4", [number, number + 3, number + 6])
        else:
            (place / f"copy-{number}.txt").write_text("The same words in several places.\n", encoding="utf-8")


def colour(number: int) -> tuple[int, ...]:
    return tuple(int(255 * part) for part in colorsys.hsv_to_rgb(number * 0.381 % 1, 0.9, 0.9))


def picture(path: Path, number: int) -> None:
    """A plain picture with a frame."""
    from PIL import Image

    pixels = np.full((48 + number % 5, 64, 3), colour(number), np.uint8)
    pixels[:4] = 255
    Image.fromarray(pixels).save(path)


def pdf(path: Path, pages: list[str]) -> None:
    """One line of Helvetica on each page."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * index} 0 R" for index in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for index, text in enumerate(pages):
        stream = f"BT /F1 18 Tf 20 100 Td ({text}) Tj ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * index} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    data = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode()
    start = len(data)
    data += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    data += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    data += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    path.write_bytes(data)


def video(path: Path, parts: list[int], part_s: int = 4, fps: int = 2) -> None:
    """Plain colours, one after the other."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for part in parts:
            pixels = np.full((48, 64, 3), colour(part), np.uint8)
            for _ in range(part_s * fps):
                for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                    container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
