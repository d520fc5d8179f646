"""The short form of ``heads``."""

import pytest

from tests.torture.heads import trials


@pytest.mark.slow
def test_damaged_files_are_healed_or_made_again() -> None:
    tally = trials(8, seed=1)
    assert tally.clean and tally.trials >= 8, tally
