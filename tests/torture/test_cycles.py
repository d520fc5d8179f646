"""The short form of ``cycles``."""

import pytest

from tests.torture.cycles import trials


@pytest.mark.slow
def test_cycles_restarts_merges_and_jumping_clocks_change_no_answer() -> None:
    for tally in trials(10, seed=1):
        assert tally.clean, tally
