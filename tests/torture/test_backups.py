"""The short form of ``backups``."""

from tests.torture import backups


def test_copies_taken_while_another_process_writes_are_whole_and_go_on() -> None:
    tally = backups.trials(6, seed=1)
    assert tally.clean and tally.trials == 6, tally
