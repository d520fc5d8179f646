"""Writes docs/openapi.json: what ``/openapi.json`` of a server says.

``python docs/make_openapi.py`` after a change of a route; a test compares the file with what this would write.
"""

from __future__ import annotations

import json
from pathlib import Path

from sightline.server.app import create_app
from sightline.server.openapi import described
from sightline.server.services import Services
from sightline.settings import Settings
from sightline.testing import ToyEmbedder, ToyReranker

TARGET = Path(__file__).parent / "openapi.json"


def text() -> str:
    """The whole file."""
    services = Services.of(Settings(), ToyEmbedder(), ToyReranker())
    try:
        return json.dumps(described(create_app(services)), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    finally:
        services.close()


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
