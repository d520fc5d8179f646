"""Feeding the engine: prompts are prepared ahead in a thread and collected into windows, from which batches are cut."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import Final, TypeVar

from sightline.errors import SightlineError
from sightline.prep.patches import num_tokens
from sightline.prep.prepare import Prepared

DEPTH: Final = 16
"""Prompts prepared ahead: hides decoding behind the model, and bounds what waits in memory."""
WINDOW_ITEMS: Final = 512
"""Most prompts in one window."""

Value = TypeVar("Value")
Result = TypeVar("Result")


def ahead(
    prepare: Callable[[Value], Prepared], values: Iterable[Value], depth: int = DEPTH
) -> Iterator[Prepared | SightlineError]:
    """Prompts of values in order, prepared in one thread while the caller works on earlier ones; a single one at once.

    Yields:
        each prompt, or the error of that value alone.
    """

    def attempt(value: Value) -> Prepared | SightlineError:
        try:
            return prepare(value)
        except SightlineError as error:
            return error

    ready = iter(values)
    first = list(islice(ready, 2))
    if len(first) < 2:  # a query: there is nothing to be ahead of, and a thread takes longer to begin than most queries
        yield from map(attempt, first)
        return
    waiting: deque[Future[Prepared | SightlineError]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="sightline-prepare") as pool:
        try:
            for value in chain(first, ready):
                waiting.append(pool.submit(attempt, value))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def windows(prompts: Iterable[Prepared | SightlineError], max_tokens: int) -> Iterator[list[Prepared | SightlineError]]:
    """Neighbouring prompts of together about ``max_tokens`` tokens.

    Visual tokens count four times, for the four patches behind each.
    """
    tokens = 0
    window: list[Prepared | SightlineError] = []
    for prompt in prompts:
        window.append(prompt)
        if isinstance(prompt, Prepared):
            tokens += len(prompt) + 3 * sum(num_tokens(visual.grid) for visual in prompt.visuals)
        if tokens >= max_tokens or len(window) >= WINDOW_ITEMS:
            yield window
            tokens, window = 0, []
    if window:
        yield window


def shown(results: Iterable[Result], total: int, label: str) -> Iterator[Result]:
    """The results, with a count on standard error."""
    done = 0
    for done, result in enumerate(results, 1):
        sys.stderr.write(f"\r{label} {done}/{total}")
        yield result
    sys.stderr.write("\n" if done else "")
