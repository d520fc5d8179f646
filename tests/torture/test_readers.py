"""The short form of ``readers``."""

import pytest

from tests.torture.readers import trials


@pytest.mark.slow
def test_readers_see_whole_versions_while_one_process_writes() -> None:
    tally = trials(400, seed=1)
    assert tally.clean and tally.trials >= 400, tally
