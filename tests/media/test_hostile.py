"""Files that killed decoders: the parent lives, and every file has an outcome."""

import collections
import time

import pytest

from sightline.errors import MEDIA_CODES, MediaError
from sightline.media.pool import DecodePool
from sightline.media.units import UnitError
from sightline.settings import Settings
from tests.media.outcome import watched


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "least_read"), [("pillow", 700), ("pdf", 230)])
def test_the_hostile_corpus(folder, least_read, shared):
    files = sorted((shared / "hostile" / folder).iterdir())
    assert files
    outcomes: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    with watched() as peaks, DecodePool(Settings(decode_timeout_s=10)) as pool:
        for path in files:
            start = time.monotonic()
            try:
                values = list(pool.units(path))
            except MediaError as error:
                outcomes[error.code] += 1
            else:
                assert values, path
                outcomes["read"] += any(not isinstance(value, UnitError) for value in values)
                outcomes["only errors"] += all(isinstance(value, UnitError) for value in values)
                assert all(value.code in MEDIA_CODES for value in values if isinstance(value, UnitError))
            slowest = max(slowest, time.monotonic() - start)
        print(folder, len(files), dict(outcomes), f"slowest {slowest:.1f} s")
    assert sum(outcomes.values()) == len(files)
    assert set(outcomes) - {"read", "only errors"} <= set(MEDIA_CODES)
    assert outcomes["read"] >= least_read
    assert slowest < 30
    assert peaks["parent"] < 1.5 * 2**30  # over what this process held before: other tests ran in it
