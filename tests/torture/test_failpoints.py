"""The short form of ``failpoints``."""

import pytest

from tests.torture.failpoints import trials


@pytest.mark.slow
def test_killed_at_each_named_point_twice() -> None:
    tally = trials(24, seed=1)
    assert tally.clean and tally.trials >= 24, tally
