"""Files that killed decoders: the short form takes some of them."""

import pytest

from tests.torture.corpus import files, trials


@pytest.mark.skipif(not files(), reason="the corpus ../shared/hostile is not here: it is not part of the project")
def test_every_hostile_file_has_one_outcome_and_the_process_lives():
    (tally,) = trials(60, 1)
    print(tally.said)
    assert tally.clean, tally
