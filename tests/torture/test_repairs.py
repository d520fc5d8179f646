"""The short form of ``repairs``."""

from tests.torture import repairs


def test_indexes_damaged_at_random_are_repaired_and_complete_again() -> None:
    tally = repairs.trials(8, seed=1)
    assert tally.clean and tally.trials == 8, tally
