"""The command line: ``sightline index``, ``search``, ``embed``, ``rerank``, ``doctor``, ``demo`` and more."""

from __future__ import annotations


def main() -> None:
    """The entry point of the program ``sightline``."""
    from sightline.cli.app import app

    app(prog_name="sightline")
