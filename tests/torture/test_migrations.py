"""The short form of ``migrations``."""

from tests.torture import migrations


def test_a_migration_killed_at_20_points_leaves_the_old_or_the_new() -> None:
    tally = migrations.trials(20, seed=1)
    assert tally.clean and tally.trials == 20, tally
