"""Mutated bytes and words: short form, and by name what the fuzzers found."""

import pytest

from sightline.errors import ConfigError, MediaError
from sightline.server.attachments import decoded, payload
from sightline.store.schema import Filter
from tests.torture.fuzz import trials


def test_nothing_but_answers_and_reasons():
    assert [tally for tally in trials(400, 2) if not tally.clean] == []


@pytest.mark.parametrize(
    "given", [f"rating={'9' * 20_000}", {"rating": 10**5000}, {"after": 10**5000}, {"rating>=": -(10**5000)}]
)
def test_a_number_too_long_for_python_is_an_error_of_the_filter(given):
    with pytest.raises(ConfigError, match=r"64 bits|finite"):
        Filter.of(given)


@pytest.mark.parametrize("body", ["\n", "\r\n\r\n", "data:image/png;base64,\n"])
def test_base64_of_nothing_but_line_breaks_is_empty(body):
    with pytest.raises(MediaError) as caught:
        decoded(payload(body), 100)
    assert caught.value.code == "empty"
