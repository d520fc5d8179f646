"""The short form of ``kills``."""

import pytest

from tests.torture.kills import trials


@pytest.mark.slow
def test_killed_sixty_times_an_index_loses_nothing_that_was_acknowledged() -> None:
    tally = trials(60, seed=1)
    assert tally.clean and tally.trials >= 60, tally
