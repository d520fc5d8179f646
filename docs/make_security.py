"""Writes the table of limits in SECURITY.md from the settings: ``python docs/make_security.py``."""

from __future__ import annotations

from pathlib import Path

from sightline.settings import table

PAGE = Path(__file__).parents[1] / "SECURITY.md"
BEGIN, END = "<!-- limits -->", "<!-- /limits -->"
WORDS = (
    "_max_",
    "decode_",
    "url_timeout",
    "serve_queue",
    "serve_timeout",
    "serve_read",
    "serve_stop",
    "allow_urls",
    "follow_links",
)
"""What makes a setting a limit."""


def limits() -> str:
    """The table."""
    lines = ["| setting | default | what it bounds |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {default} | {about} |" for name, _, default, about in table() if any(w in name for w in WORDS)
    ]
    return "\n".join(lines)


def page() -> str:
    """SECURITY.md with today's table."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n{limits()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
