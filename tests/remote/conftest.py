from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.remote.fake import Fake, start


@pytest.fixture
def fake() -> Iterator[Fake]:
    """A server on a free port of this machine."""
    fake = Fake()
    server = start(fake)
    yield fake
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits between tries; how long they would have waited is written down."""
    from sightline.remote.calls import Caller

    waits: list[float] = []

    def wait(self: Caller, attempt: int, retry_after_s: float | None) -> None:
        waits.append(-1.0 if retry_after_s is None else retry_after_s)

    monkeypatch.setattr(Caller, "_wait", wait)
    return waits
