"""The short form of ``writers``."""

import pytest

from tests.torture.writers import trials


@pytest.mark.slow
def test_two_writers_at_once_lose_and_duplicate_nothing() -> None:
    for tally in trials(16, seed=1):
        assert tally.clean, tally
