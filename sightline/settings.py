"""The one table of settings: command-line options, environment names, documentation and checks come from it.

A setting ``image_max_pixels`` is read from the environment as ``SIGHTLINE_IMAGE_MAX_PIXELS`` by
``Settings.from_env()``, which is called by the faces only; nothing reads the environment at import.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from sightline.errors import ConfigError

ENV_PREFIX: Final = "SIGHTLINE_"
ON_DEVICE: Final = "device"
RESIZES: Final = ("pillow", ON_DEVICE)


def _setting(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, secret: bool = False
) -> Any:
    return field(default=default, repr=not secret, metadata={"help": help, "low": low, "high": high, "secret": secret})


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Every setting with its default, unit and range.

    >>> Settings(image_max_pixels=1000).image_max_pixels
    1000
    >>> Settings.from_env({"SIGHTLINE_PDF_MAX_PAGES": "5"}).pdf_max_pages
    5
    """

    library: str = _setting("", "folder of the index; empty takes the default in the user's data folder")
    model: str = _setting("builtin", "embedder: builtin, a Hub id, modelscope:ID or a folder")
    reranker: str = _setting("builtin", "reranker: builtin, a Hub id, modelscope:ID, a folder, or none")
    device: str = _setting("", "torch device, such as cpu or cuda:0; empty takes the best one")
    dtype: str = _setting("", "float32, bfloat16, float16 or int8 (on CPUs); empty takes the best for the device")
    quality: str = _setting(
        "",
        "fast, balanced or full: 256, 768 or 1,800 tokens for a picture, and at fast half of the frames of a moment; "
        "empty takes what the index has, and for a new one balanced on a CPU, full on a GPU",
    )
    resize: str = _setting(
        "pillow",
        "pillow resizes pictures as the official code; device does it where the model runs: less for a CPU to do, "
        "vectors within 1e-3",
    )
    feature_cache: str = _setting("", "folder that keeps vision features of pictures between runs; empty keeps none")
    feature_cache_bytes: int = _setting(16 * 2**30, "bytes of that folder", low=2**20)

    image_max_pixels: int = _setting(64_000_000, "pixels an image file may declare", low=1)
    image_max_side: int = _setting(30_000, "pixels of the longer side of an image file", low=1)
    image_max_bytes: int = _setting(256 * 2**20, "bytes of an image file", low=1)
    text_max_bytes: int = _setting(200 * 2**20, "bytes of a text file", low=1)
    text_passage_tokens: int = _setting(256, "most tokens in one passage of text", low=16, high=8192)
    pdf_max_pages: int = _setting(2_000, "pages read of one PDF; the rest is reported", low=1)
    pdf_page_pixels: int = _setting(
        1_843_200, "pixels a PDF page is rendered to (at most 4,000,000)", low=4096, high=4e6
    )
    pdf_max_bytes: int = _setting(2**30, "bytes of a PDF file", low=1)
    video_max_s: float = _setting(4 * 3600.0, "seconds read of one video; the rest is reported", low=1)
    video_max_side: int = _setting(8192, "pixels of the longer side of a video", low=16)
    video_fps: float = _setting(1.0, "frames taken per second of video", low=0.01, high=60)
    video_max_frames: int = _setting(64, "most frames taken of one moment or video", low=2, high=768)
    moment_s: float = _setting(8.0, "seconds in one moment of a video", low=0.5)
    moment_step_s: float = _setting(4.0, "seconds from the start of one moment to the next", low=0.25)
    decode_memory_bytes: int = _setting(2 * 2**30, "address space of a decoder process", low=256 * 2**20)
    decode_timeout_s: float = _setting(30.0, "seconds a decoder may take for one step of a file", low=1)
    decode_workers: int = _setting(1, "decoder processes", low=1, high=64)
    allow_urls: bool = _setting(False, "fetch http and https addresses given as images or videos")
    url_hosts: str = _setting("", "hosts that may be fetched from, joined by commas; empty allows every public one")
    url_max_bytes: int = _setting(20 * 2**20, "bytes fetched from one URL", low=1)
    url_timeout_s: float = _setting(10.0, "seconds for one fetch", low=0.1)

    rerank: int = _setting(50, "candidates the reranker sees", low=0, high=10_000)
    follow_links: bool = _setting(False, "follow symbolic links while looking for files")

    serve_host: str = _setting("127.0.0.1", "address the server listens on; any but this machine's own needs a key")
    serve_port: int = _setting(8077, "port of the server; 0 takes a free one", low=0, high=65535)
    serve_keys: str = _setting("", "keys that callers may use, joined by commas; empty asks for none", secret=True)
    serve_hosts: str = _setting("", "further names the server answers to (Host header), joined by commas")
    serve_origins: str = _setting("", "web sites whose pages may call the server (CORS), joined by commas")
    serve_roots: str = _setting("", "folders from which callers may index files by path, joined by commas")
    serve_max_bytes: int = _setting(64 * 2**20, "bytes of one request", low=1024)
    serve_max_items: int = _setting(256, "items in one request", low=1, high=100_000)
    serve_max_media: int = _setting(64, "images and videos in one request", low=1, high=10_000)
    serve_queue: int = _setting(512, "requests waiting or running; more are answered 429", low=1, high=100_000)
    serve_timeout_s: float = _setting(120.0, "seconds for one answer", low=0.1)
    serve_read_s: float = _setting(20.0, "seconds within which a request must arrive whole", low=0.1)
    serve_stop_s: float = _setting(30.0, "seconds that running requests get when the server is stopped", low=0)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            low, high = f.metadata["low"], f.metadata["high"]
            if low is not None and not value >= low:
                raise ConfigError(f"{f.name} must be at least {low:g}, not {value}")
            if high is not None and not value <= high:
                raise ConfigError(f"{f.name} must be at most {high:g}, not {value}")
        if self.resize not in RESIZES:
            raise ConfigError(f"resize must be one of {', '.join(RESIZES)}, not {self.resize!r}")
        if self.moment_step_s > self.moment_s:
            raise ConfigError("moment_step_s must not be over moment_s: seconds between moments would be lost")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Settings from the environment, with ``overrides`` (None is ignored) on top.

        Raises:
            ConfigError: a name that starts with SIGHTLINE_ and is no setting, or a value out of range.
        """
        environ = os.environ if environ is None else environ
        known = {f.name: f for f in fields(cls)}
        values: dict[str, Any] = {}
        for key, text in environ.items():
            if not key.startswith(ENV_PREFIX):
                continue
            name = key[len(ENV_PREFIX) :].lower()
            if name not in known:
                raise ConfigError(f"{key} is no setting; known are {', '.join(env_name(n) for n in known)}")
            values[name] = _parse(key, text, known[name].default)
        for name, value in overrides.items():
            if name not in known:
                raise ConfigError(f"{name} is no setting; known are {', '.join(known)}")
            if value is not None:
                values[name] = value
        return cls(**values)

    def replace(self, **changes: Any) -> Settings:
        """A copy with some settings changed."""
        return dataclasses.replace(self, **changes)


def env_name(name: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + name.upper()


def _parse(key: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() in {"1", "true", "yes", "on"}:
            return True
        if text.lower() in {"0", "false", "no", "off", ""}:
            return False
        raise ConfigError(f"{key} must be on or off, not {text!r}")
    try:
        return type(default)(text)
    except ValueError:
        raise ConfigError(f"{key} must be {type(default).__name__}, not {text!r}") from None


def data_folder() -> Path:
    """Where programs keep a user's data: XDG on Linux, Application Support on a Mac, Local AppData on Windows."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "sightline"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "sightline"
    given = os.environ.get("XDG_DATA_HOME", "")
    # the specification: a relative path is to be ignored
    return (Path(given) if given.startswith("/") else Path.home() / ".local" / "share") / "sightline"


def library_folder(settings: Settings) -> Path:
    """The folder of the index: of the settings (``--library``, $SIGHTLINE_LIBRARY), else the default one."""
    return Path(settings.library).expanduser() if settings.library else data_folder() / "library.sightline"


def table() -> list[tuple[str, str, str, str]]:
    """(name, environment name, default, help) of every setting, for docs and ``sightline settings``."""
    return [(f.name, env_name(f.name), str(f.default), f.metadata["help"]) for f in fields(Settings)]


def shown(settings: Settings, name: str) -> Any:
    """The value of a setting as it may be shown: a secret is only said to be there."""
    value = getattr(settings, name)
    about = next(f for f in fields(settings) if f.name == name)
    return "(set)" if about.metadata["secret"] and value else value
