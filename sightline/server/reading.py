"""Parts of a request to items, with the limits first; and whose fault an error is, as a key of the request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sightline.errors import ItemError, MediaError
from sightline.protocols import EmbeddingModel
from sightline.server.faults import Fault
from sightline.server.services import Services
from sightline.server.wire import Part
from sightline.types import Item


def check_count(services: Services, number: int, param: str) -> None:
    """Refuse more items than one request may hold, before any is looked at.

    Raises:
        Fault: 413.
    """
    most = services.settings.serve_max_items
    if number > most:
        raise Fault(413, f"at most {most} items in one request", code="too_many_items", param=param)


def items(services: Services, parts: Sequence[Part]) -> list[Item]:
    """Parts with their media decoded. Blocks.

    Raises:
        ItemError: the first part that cannot be read.
    """
    with services.metrics.stage("decode"):
        return services.attachments.items(parts)


def count_tokens(embedder: EmbeddingModel, parts: Sequence[Part]) -> int:
    """Tokens of the texts, without the prompt around them."""
    return sum(embedder.count_tokens(text) for part in parts for text in part.text)


@contextmanager
def blamed(place: Callable[[int], str], whole: str | None = None) -> Iterator[None]:
    """Let errors of items leave with the key of the request that they belong to.

    Args:
        place: the key of an item by its position.
        whole: the key of what has no position, such as the query.

    Raises:
        Fault: 400, 413 where memory does not suffice for that item alone.
    """
    try:
        yield
    except ItemError as error:
        param = place(error.position)
        raise Fault(
            413 if error.code == "oom" else 400, f"{param}: {error.detail}", code=error.code, param=param
        ) from None
    except MediaError as error:
        raise Fault(400, f"{whole}: {error.detail}" if whole else error.detail, code=error.code, param=whole) from None
