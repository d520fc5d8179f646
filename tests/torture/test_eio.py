"""The short form of ``eio``."""

import pytest

from tests.torture import faults
from tests.torture.eio import trials


@pytest.mark.slow
def test_a_failed_write_or_sync_is_never_called_a_success() -> None:
    if faults.library() is None:
        pytest.skip("there is no C compiler here, or this is not Linux")
    for tally in trials(8, seed=1):
        assert tally.clean, tally
