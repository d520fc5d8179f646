"""The short form of ``disk``."""

import pytest

from tests.torture.disk import trials


@pytest.mark.slow
def test_full_disks_and_folders_that_cannot_be_written() -> None:
    for tally in trials(3, seed=1):
        assert tally.clean, tally
