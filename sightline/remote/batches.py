"""Which parts travel together, and what becomes of the others when one of them is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from sightline.errors import MEDIA_CODES, MediaError, RemoteError
from sightline.remote.parts import Part

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

NOT_THE_ITEM: Final = frozenset({401, 403, 404, 405, 407, 408, 421, 429, 502, 503, 504})
"""Statuses that no other item would have changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one request may hold.

    Attributes:
        items: parts.
        media: pictures and frames.
        bytes: of the parts as they are sent.
    """

    items: int
    media: int = 64
    bytes: int = 32 * 2**20


def groups(parts: Sequence[Part], limits: Limits) -> Iterator[list[int]]:
    """Places of neighbouring parts that fit into one request. A part over a limit travels alone.

    >>> list(groups([Part(texts=("a",))] * 5, Limits(items=2)))
    [[0, 1], [2, 3], [4]]
    """
    group: list[int] = []
    media = size = 0
    for place, part in enumerate(parts):
        media += part.num_media
        size += part.num_bytes
        if group and (len(group) >= limits.items or media > limits.media or size > limits.bytes):
            yield group
            group, media, size = [], part.num_media, part.num_bytes
        group.append(place)
    if group:
        yield group


def settle(ask: Callable[[list[int]], Sequence[Result]], group: list[int]) -> list[Result | MediaError]:
    """One result for each place of a group, or the error of that place alone.

    A request that is refused for what it holds is repeated place by place.

    Args:
        ask: one request; as many results as it is given places.
        group: places, at least one.

    Raises:
        RemoteError: the server cannot be used, whatever it is asked; or it fails (5xx) at every place.
    """
    try:
        return list(ask(group))
    except RemoteError as error:
        if not _blames(error) or (len(group) == 1 and error.status >= 500):
            raise
        if len(group) == 1:
            return [_refused(error)]
        logger.info("a request of %d items is repeated one by one: %s", len(group), error)
    results: list[Result | MediaError] = []
    failures: list[RemoteError] = []
    for place in group:
        try:
            results += ask([place])
        except RemoteError as error:
            if not _blames(error):
                raise
            failures.append(error)
            results.append(_refused(error))
    if len(failures) == len(group) and all(error.status >= 500 for error in failures):
        raise failures[0]
    return results


def _blames(error: RemoteError) -> bool:
    """Whether the request was understood and refused for what it holds."""
    return error.status >= 400 and error.status not in NOT_THE_ITEM


def _refused(error: RemoteError) -> MediaError:
    """An item that the server will not take, with the server's reason where it is one of ours.

    The server's own words go to the log: they may hold anything.
    """
    logger.warning("an item is refused: %s", error)
    if error.code in MEDIA_CODES:
        return MediaError(error.code)
    if error.status == 413:
        return MediaError("too_large", "the item is too large for the server")
    if error.status >= 500:
        return MediaError("crash", f"the server failed at the item ({error.status})")
    return MediaError("option", f"the server refused the item ({error.status})")
