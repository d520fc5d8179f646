"""Files that callers send: written to disk as they arrive, and put into the library's folder when all are there.

The names are the callers', made harmless: no folders, no control characters, nothing hidden, nothing that a system
reserves. Nothing is overwritten, and nothing of a request that breaks off stays.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import shutil
import unicodedata
from pathlib import Path, PurePath
from typing import BinaryIO, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from sightline.errors import StoreError
from sightline.server.faults import Fault
from sightline.store.ledger import sync_folder

MOST_FILES: Final = 1_000
"""Files in one request."""
FIELD_BYTES: Final = 64 * 1024
"""Bytes of ``columns``."""
HEADER_BYTES: Final = 8 * 1024
"""Bytes of the headers of one part."""
NAME_BYTES: Final = 200
"""Of a kept name: file systems take 255, and a number may be added."""
RESERVED: Final = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{name}{number}" for name in ("COM", "LPT") for number in range(1, 10))}
)
"""Names that are devices on Windows, whatever the suffix."""


class Upload:
    """Takes the body of one multipart request, chunk by chunk: ``files`` and perhaps ``columns``.

    Args:
        folder: where the files are to be kept; made if it is not there.
        content_type: of the request.
    """

    def __init__(self, folder: Path, content_type: str) -> None:
        _, options = parse_options_header(content_type.encode("latin-1", "replace"))
        boundary = options.get(b"boundary", b"")
        if not 0 < len(boundary) <= 200:
            raise Fault(400, "the multipart body has no boundary", code="invalid_form")
        self._folder = folder
        self._incoming = folder / ".incoming" / secrets.token_hex(8)
        self._files: list[tuple[Path, str]] = []
        self._columns: bytes | None = None
        self._file: BinaryIO | None = None
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._disposition = b""
        self._header_bytes = 0
        self._complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._add_header(0, data[start:end]),
                    "on_header_value": lambda data, start, end: self._add_header(1, data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open,
                    "on_part_data": lambda data, start, end: self._take(data[start:end]),
                    "on_part_end": self._close_part,
                    "on_end": self._end,
                },
            )
        except FormParserError:
            raise Fault(400, "the multipart body has no boundary", code="invalid_form") from None

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body.

        Raises:
            Fault: the body is malformed, or holds too much.
            StoreError: the disk refuses.
        """
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise Fault(400, "the multipart body is malformed", code="invalid_form") from None
        except OSError as error:
            raise StoreError(f"an upload cannot be written: {error.strerror}") from error

    def columns(self) -> object:
        """The columns as JSON gave them, or None.

        Raises:
            Fault: the body was not complete, holds no file, or the columns are no JSON.
        """
        if not self._complete:
            raise Fault(400, "the multipart body is not complete", code="invalid_form")
        if not self._files:
            raise Fault(400, 'the form holds no file; send them as "files"', code="no_files", param="files")
        if self._columns is None:
            return None
        try:
            found: object = json.loads(self._columns)
        except (ValueError, RecursionError):
            raise Fault(400, "columns must be a JSON object", code="invalid_json", param="columns") from None
        return found

    def keep(self) -> list[str]:
        """Put the files into the folder; their paths.

        Raises:
            StoreError: the disk refuses.
        """
        assert self._complete
        try:
            kept = [os.fspath(_move(arrived, self._folder, name)) for arrived, name in self._files]
            sync_folder(self._folder)
        except OSError as error:
            raise StoreError(f"an upload cannot be kept: {error.strerror}") from error
        return kept

    def close(self) -> None:
        """Drop what was not kept."""
        if self._file is not None:
            self._file.close()
            self._file = None
        shutil.rmtree(self._incoming, ignore_errors=True)

    # --- called by the parser ---

    def _begin(self) -> None:
        self._disposition = b""
        self._header_bytes = 0

    def _add_header(self, which: int, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > HEADER_BYTES:
            raise Fault(400, "a header of a part is too long", code="invalid_form")
        self._header[which].extend(data)

    def _end_header(self) -> None:
        name, value = (bytes(part) for part in self._header)
        self._header = (bytearray(), bytearray())
        if name.lower() == b"content-disposition":
            self._disposition = value

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"")
        if field == b"columns" and b"filename" not in options and self._columns is None:
            self._columns = b""
        elif field == b"files" and b"filename" in options:
            if len(self._files) >= MOST_FILES:
                raise Fault(413, f"at most {MOST_FILES} files in one request", code="too_many_items", param="files")
            self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
            place = self._incoming / str(len(self._files))
            self._file = place.open("xb")
            self._files.append((place, clean_name(options[b"filename"].decode("utf-8", "replace"))))
        else:
            raise Fault(400, 'the form takes "files" and "columns"', code="invalid_form")

    def _take(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
        elif self._columns is not None:
            self._columns += data
            if len(self._columns) > FIELD_BYTES:
                raise Fault(413, "columns is too long", code="too_large", param="columns")

    def _close_part(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _end(self) -> None:
        self._complete = True


def clean_name(given: str) -> str:
    r"""A file name that is only a file name, on every system.

    >>> clean_name("../../etc/passwd"), clean_name("C:\\x\\con.txt"), clean_name(".hidden\n.png"), clean_name("..")
    ('passwd', '_con.txt', 'hidden.png', 'upload')
    """
    name = unicodedata.normalize("NFC", given.replace("\\", "/").rsplit("/", 1)[-1])
    name = "".join(char for char in name if unicodedata.category(char)[0] != "C" and char not in '<>:"|?*')
    name = name.encode("utf-8", "ignore").decode("utf-8").lstrip(". ").rstrip(". ")
    if PurePath(name).stem.split(".")[0].strip().upper() in RESERVED:
        name = "_" + name
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - of a name, not of a path
    suffix = suffix if len(suffix.encode()) <= 20 else ""
    stem = (stem if suffix else name).encode()[: NAME_BYTES - len(suffix.encode())].decode("utf-8", "ignore")
    return f"{stem}{suffix}" if stem else "upload"


def _move(arrived: Path, folder: Path, name: str) -> Path:
    """Give an arrived file its name in the folder, or the next free one: "a.jpg", "a (2).jpg"."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - as above
    for number in itertools.count(1):
        place = folder / (name if number == 1 else f"{stem} ({number}){suffix}")
        try:
            # an empty file claims the name, whoever else wants it at this moment; then it is replaced
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        except FileExistsError:
            continue
        arrived.replace(place)
        return place
    raise AssertionError("there is always a next number")
