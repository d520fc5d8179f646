"""The short form of ``power``."""

import pytest

from tests.torture import faults
from tests.torture.power import trials


@pytest.mark.slow
def test_ten_power_cuts_take_nothing_that_was_acknowledged() -> None:
    if faults.library() is None:
        pytest.skip("there is no C compiler here, or this is not Linux")
    tally = trials(10, seed=1)
    assert tally.clean and tally.trials >= 10, tally
