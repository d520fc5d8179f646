"""Options that several commands share, with help, defaults and environment names from ``sightline.settings``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from sightline.settings import Settings, env_name

_SETTINGS = {f.name: f for f in fields(Settings)}


def setting(name: str, *flags: str, shown: str | None = None) -> Any:
    """An option that sets a setting: its help, its default and its environment name, from the one table."""
    about = _SETTINGS[name]
    default = shown if shown is not None else str(about.default)
    text = f"{about.metadata['help']} [{env_name(name)}{f'; default: {default}' if default else ''}]"
    return typer.Option(*(flags or (f"--{name.replace('_', '-')}",)), help=text, show_default=False)


LibraryOption = Annotated[str | None, setting("library")]
DeviceOption = Annotated[str | None, setting("device")]
DtypeOption = Annotated[str | None, setting("dtype")]
QualityOption = Annotated[str | None, setting("quality")]
ModelOption = Annotated[str | None, setting("model")]
RerankerOption = Annotated[str | None, setting("reranker")]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON document (docs/cli.md has its shape)")]
ImageOption = Annotated[list[Path] | None, typer.Option("--image", help="an image file; may be given several times")]
VideoOption = Annotated[list[Path] | None, typer.Option("--video", help="a video file; may be given several times")]
RevisionOption = Annotated[str | None, typer.Option(help="commit of the Hub id given as model")]
InstructionOption = Annotated[
    str | None, typer.Option(help="what this is for, in English; the models' own instruction where none is given")
]
