"""What the commands put on the screen: consoles, safe names, numbers for people, JSON, errors.

Standard output holds results only; notes, progress and errors go to standard error. Names that come from disk or
from an index are never markup and never control characters: they pass through ``clean``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final, TypeVar, cast

import typer
from rich.console import Console
from rich.text import Text

from sightline.errors import SightlineError

PIPE_WIDTH: Final = 160
"""Columns of a table that no terminal limits."""

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    r"""The text on one line, with control characters, direction marks and odd bytes written as escapes.

    >>> clean("a\nb"), clean("\x1b[31mred"), clean(chr(0xDCFF)), clean("[bold]x")
    ('a\\nb', '\\x1b[31mred', '\\xff', '[bold]x')
    """
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def short_path(path: str) -> str:
    """The path as people write it: below the working folder or the home folder where it is; cleaned."""
    for folder, mark in ((Path.cwd(), ""), (Path.home(), "~/")):
        prefix = os.fspath(folder).rstrip("/") + "/"
        if len(prefix) > 1 and path.startswith(prefix):
            return clean(mark + path[len(prefix) :])
    return clean(path)


def clock(seconds: float) -> str:
    """Minutes and seconds of a place in a video; hours where there are any.

    >>> clock(8), clock(75.6), clock(3700)
    ('00:08', '01:15', '1:01:40')
    """
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60:02d}:{rest % 60:02d}"


def duration(seconds: float) -> str:
    """A span of time for people.

    >>> duration(0.4), duration(12.34), duration(75), duration(7265)
    ('0.4 s', '12 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60} min"


def place(path: str, page: int | None, start_s: float | None, end_s: float | None) -> str:
    """Where a hit is: the path, with its page or its minutes and seconds.

    >>> place("/v/film.mp4", None, 8, 16), place("/d/a.pdf", 3, None, None)
    ('/v/film.mp4 00:08–00:16', '/d/a.pdf page 3')
    """
    shown = short_path(path)
    if page is not None:
        return f"{shown} page {page}"
    if start_s is not None:
        return f"{shown} {clock(start_s)}" + (f"–{clock(end_s)}" if end_s is not None else "")
    return shown


def number(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun.

    >>> number(1, "file"), number(2000, "file"), number(0, "match", "matches")
    ('1 file', '2,000 files', '0 matches')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def console(file: IO[str] | None = None) -> Console:
    """A console that takes no markup, on standard output where nothing else is named."""
    file = file if file is not None else sys.stdout
    width = None if file.isatty() else PIPE_WIDTH
    return Console(file=file, markup=False, emoji=False, highlight=False, width=width, soft_wrap=False)


def say(text: str | Text) -> None:
    """A line of a result."""
    console().print(text, soft_wrap=True)


def note(text: str) -> None:
    """A line for the person, beside the result."""
    console(sys.stderr).print(Text(text, style="dim"), soft_wrap=True)


def put_json(value: Any, *, indent: int | None = 2) -> None:
    """One JSON document (or, without indent, one line of JSON) on standard output."""
    text = json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a file name that is no UTF-8, or a terminal that is not
        text = json.dumps(plain(value), indent=indent, ensure_ascii=True, allow_nan=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def plain(value: Any) -> Any:
    """A value as JSON holds it: dataclasses as objects, tuples as lists, arrays as lists of numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(part) for part in value]
    if hasattr(value, "tolist"):
        if str(getattr(value, "dtype", "")) in ("float32", "float16"):  # the shortest digits that give the same number
            return [float(str(number)) for number in value]
        return value.tolist()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def put_error(kind: str, message: str, *, as_json: bool) -> None:
    """An error: one line on standard error, or one JSON object on standard output."""
    if as_json:
        put_json({"error": {"type": kind, "message": message}})
    else:
        console(sys.stderr).print(Text.assemble(("error: ", "bold red"), clean(message)), soft_wrap=True)


Command = TypeVar("Command", bound=Callable[..., None])


def guarded(command: Command) -> Command:
    """A command whose errors are one line and an exit code.

    A ``SightlineError`` ends with its ``exit_code``, Ctrl-C with 130, anything else with 70 (a fault of ours) and
    the way to see where it happened. ``python -X dev -m sightline`` shows the traceback of a fault.
    """

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        as_json = bool(options.get("as_json"))
        try:
            command(*args, **options)
        except (typer.Exit, typer.Abort):
            raise
        except SightlineError as error:
            put_error(type(error).__name__, str(error), as_json=as_json)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            put_error("Interrupted", "stopped by Ctrl-C", as_json=as_json)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # whoever read has gone (`| head`); what is left in the buffer must not raise again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except Exception as error:  # the last frame of a command: a fault of ours is said in one line
            if sys.flags.dev_mode:
                raise
            hint = "a fault in Sightline; `python -X dev -m sightline …` shows where"
            put_error("InternalError", f"{type(error).__name__}: {error} ({hint})", as_json=as_json)
            raise typer.Exit(70) from None

    return cast(Command, run)
