"""The short form of ``rebuilds``."""

from tests.torture import rebuilds


def test_rebuilds_killed_at_random_moments_keep_every_label() -> None:
    tally = rebuilds.trials(12, seed=1)
    assert tally.clean and tally.trials == 12, tally
