"""The sha256 of a checkpoint's weights: what a person can compare with the page the weights came from."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from sightline.model.weights import Checkpoint

MOST_HASHED: Final = 2**30
"""Bytes of weights that are hashed at a start: half a second."""

_SHA256 = re.compile("[0-9a-f]{64}")


def sha256_of(checkpoint: Checkpoint) -> str:
    """sha256 of the file of weights, or over the names and sha256 of several as ``sha256sum`` prints them.

    A Hub download lies under its sha256 already. Other folders are hashed, unless that would take seconds at every
    start: "" over ``MOST_HASHED`` bytes, where ``sha256sum`` by hand and the fingerprint must do.
    """
    paths = sorted(set(checkpoint.files.values()))
    found = [path.resolve().name if path.is_symlink() else "" for path in paths]
    if not all(_SHA256.fullmatch(one) for one in found):
        if sum(path.stat().st_size for path in paths) > MOST_HASHED:
            return ""
        found = []
        for path in paths:
            with path.open("rb") as file:
                found.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(paths) == 1:
        return found[0]
    lines = (f"{one}  {path.name}\n" for one, path in zip(found, paths, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
