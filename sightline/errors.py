"""Every error Sightline raises on purpose.

::

    SightlineError
    ├── InputError             what the caller gave cannot be used
    │   ├── ItemError          one item of a list; carries its position
    │   ├── MediaError         one file, image, page or video; carries a code
    │   └── PromptError        media do not fit the token budget, instruction too long
    ├── ConfigError            an option, key or setting is unknown or out of range
    ├── WeightsError           a checkpoint is incomplete, unsafe or of another model
    ├── CapacityError          one item alone does not fit into memory
    ├── StoppedError           the work was given up: the models are closed or failed, or the caller has gone
    ├── StoreError             the index cannot be read or written
    │   ├── IndexMismatchError the index was built with another model
    │   └── IndexLockedError   another process writes to the index
    ├── RemoteError            a server that should embed or rerank does not
    └── MissingExtraError      an optional package is needed; says which extra brings it

The library raises these; the command line prints one line and an exit code
(``exit_code``); the server maps each class to one status.
Texts are ours: messages of decoders are never passed on, because they have
leaked addresses and paths before (CVE-2026-22778).
"""

from __future__ import annotations

from typing import Final

MEDIA_CODES: Final[dict[str, str]] = {
    "empty": "the file is empty",
    "not_media": "the bytes are not of a supported kind",
    "unsupported": "this format needs a decoder that is not installed",
    "format_not_allowed": "this format is not on the allow-list",
    "corrupt": "the file is damaged and cannot be decoded",
    "too_large": "the file is over a size limit",
    "aspect": "one side is more than 200 times the other",
    "password": "the document needs a password",
    "no_video": "the file holds no video stream",
    "no_frames": "the video holds no frames",
    "no_pages": "the document has no pages",
    "binary": "the file is not text",
    "unreadable": "the file cannot be opened",
    "not_file": "not a regular file",
    "url_off": "fetching URLs is switched off",
    "changed": "the file changed while it was read",
    "timeout": "decoding took too long",
    "memory": "decoding needed too much memory",
    "crash": "the decoder process died",
    "nan": "the model returned a vector that is not finite",
    "oom": "the item alone does not fit into memory",
    "too_long": "the media do not fit the token budget",
    "option": "an option of the item is out of range",
}
"""Code -> fixed sentence. The only reasons a file or item can be skipped for."""


class SightlineError(Exception):
    """Base of every error raised on purpose."""

    exit_code = 1


class InputError(SightlineError):
    """What the caller gave cannot be used."""

    exit_code = 2


class ItemError(InputError):
    """One item of a list cannot be embedded or scored; the others can.

    Attributes:
        position: index of the item in the caller's list, from 0.
        code: a key of ``MEDIA_CODES``.
    """

    def __init__(self, position: int, code: str, detail: str = "") -> None:
        self.position = position
        self.code = code
        self.detail = detail or MEDIA_CODES.get(code, code)
        super().__init__(f"item {position}: {self.detail} [{code}]")

    @classmethod
    def of(cls, position: int, error: SightlineError) -> ItemError:
        """The error of one item as the error of a place in a list."""
        if isinstance(error, (ItemError, MediaError)):
            return cls(position, error.code, error.detail)
        if isinstance(error, CapacityError):
            return cls(position, "oom", str(error))
        return cls(position, "too_long" if isinstance(error, PromptError) else "option", str(error))


class MediaError(InputError):
    """A file, image, page or video cannot be read.

    Attributes:
        code: a key of ``MEDIA_CODES``.
        detail: a short sentence without paths or decoder text.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        self.code = code
        self.detail = detail or MEDIA_CODES.get(code, code)
        super().__init__(f"{self.detail} [{code}]")


class PromptError(InputError):
    """The prompt cannot be built within the token budget."""


class ConfigError(SightlineError):
    """An option, key or setting is unknown or out of range."""

    exit_code = 2


class WeightsError(SightlineError):
    """A checkpoint is incomplete, unsafe, or not of this model."""

    exit_code = 3


class CapacityError(SightlineError):
    """One item alone does not fit into memory."""

    exit_code = 4


class StoppedError(SightlineError):
    """The work was given up: the models are closed or have failed, or the caller has gone."""


class StoreError(SightlineError):
    """The index cannot be read or written."""

    exit_code = 5


class IndexMismatchError(StoreError):
    """The index was built with another model, revision or budget."""


class IndexLockedError(StoreError):
    """Another process writes to the index."""


class RemoteError(SightlineError):
    """A server that should embed or rerank cannot be reached, refuses, or answers something else.

    Attributes:
        status: of HTTP; 0 when there was no answer.
        code: what the server calls it, or "".
    """

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        self.status = status
        self.code = code
        super().__init__(message)


class MissingExtraError(SightlineError):
    """An optional package is needed.

    >>> str(MissingExtraError("pillow-heif", "heic"))
    "this needs the package pillow-heif: pip install 'sightline[heic]'"
    """

    exit_code = 6

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"this needs the package {package}: pip install 'sightline[{extra}]'")
