"""The short form of ``soak``."""

import pytest

from tests.torture.soak import Seen, trials


def test_a_server_lives_through_kills_of_the_process_that_fills_its_index():
    tally = trials(5, seed=1)
    assert tally.clean and tally.trials >= 5, tally
    assert "queries" in tally.said


def test_what_counts_as_growth():
    leaking = Seen(samples=[(60.0 * minute, 100.0 + minute / 30, 40 + minute // 60) for minute in range(600)])
    assert leaking.mb_hour() == pytest.approx(2.0) and leaking.more_files() > 5
    assert leaking.late()[0][0] == 7200.0
    warming = Seen(samples=[(60.0 * minute, 100.0 + min(minute, 60), 40) for minute in range(600)])
    assert warming.mb_hour() == pytest.approx(0.0, abs=1e-9) and warming.more_files() == 0
