"""Every fact of a model that decides its vectors is compared, and every refusal names the command that helps."""

import dataclasses
import shlex
from typing import Any

import pytest

from sightline.errors import IndexMismatchError, StoreError
from sightline.search.identity import DECISIVE, UNIT_SETTINGS, card_of, check_card, check_settings
from sightline.settings import Settings
from sightline.testing import toy_card

BUILT = dataclasses.replace(toy_card("org/model"), revision="a" * 40)
CHANGES: dict[str, Any] = {
    "fingerprint": "f" * 16,
    "dim": 128,
    "instruction": "Find it.",
    "template": "toy-2",
    "min_pixels": 1,
    "max_pixels": 2,
    "total_pixels": 3,
    "fps": 4.0,
    "max_frames": 5,
    "max_length": 6,
}
FREE = {"model", "revision", "dtype", "trust", "weights"}
"""What may differ where the fingerprint says that the weights are the same; ``weights`` only where a side lacks it."""


def refusal(**changes: Any) -> str:
    with pytest.raises(IndexMismatchError) as raised:
        check_card(BUILT, dataclasses.replace(BUILT, **changes), "/my index")
    return str(raised.value)


def test_every_field_of_a_card_is_decided_upon() -> None:
    assert set(DECISIVE) == set(CHANGES)
    assert {field.name for field in dataclasses.fields(BUILT)} == {*CHANGES, *FREE}


@pytest.mark.parametrize("name", CHANGES)
def test_each_difference_is_refused_with_what_helps(name: str) -> None:
    said = refusal(**{name: CHANGES[name]})
    assert said.startswith("index built with ") and "you run " in said
    rebuild = said[said.index("sightline index --rebuild") :]
    words = shlex.split(rebuild)
    assert words[words.index("--library") + 1] == "/my index"
    assert words[words.index("--model") + 1] == "org/model"
    if name not in ("fingerprint", "dim"):
        assert f"load the model with {name}={getattr(BUILT, name)!r}" in said
        assert repr(CHANGES[name]) in said


def test_another_revision_with_other_weights_is_refused_with_the_revision_to_take() -> None:
    said = refusal(revision="b" * 40, fingerprint="f" * 16)
    assert f"org/model@{'a' * 12}" in said and f"org/model@{'b' * 12}" in said
    assert f"use --model org/model --revision {'a' * 40}, or" in said
    assert f"--rebuild --library '/my index' --model org/model --revision {'b' * 40} FOLDER…" in said


def test_another_model_is_refused_with_the_model_to_take() -> None:
    said = refusal(model="other/model", revision="", fingerprint="f" * 16, dim=2048)
    assert "other/model (fingerprint ffffffffffffffff, 2048 numbers)" in said
    assert f"use --model org/model --revision {'a' * 40}, or" in said and "--model other/model FOLDER…" in said


def test_other_weights_that_begin_alike_are_refused() -> None:
    built, running = (dataclasses.replace(BUILT, weights=one * 64) for one in "ab")
    with pytest.raises(IndexMismatchError, match=f"weights {'a' * 12}.*you run .*weights {'b' * 12}.*--rebuild"):
        check_card(built, running, "/index")
    check_card(built, BUILT, "/index")  # an index of before, or a model whose sum is not known
    check_card(BUILT, running, "/index")


@pytest.mark.parametrize("change", [{"model": "/a/folder"}, {"revision": "b" * 40}, {"dtype": "bfloat16"}])
def test_the_same_weights_are_the_same_model(change: dict[str, Any]) -> None:
    check_card(BUILT, dataclasses.replace(BUILT, **change), "/index")


@pytest.mark.parametrize("name", UNIT_SETTINGS)
def test_each_setting_that_cuts_files_is_refused_with_what_helps(name: str) -> None:
    settings = Settings()
    built = {one: getattr(settings, one) for one in UNIT_SETTINGS}
    built[name] += 1
    with pytest.raises(IndexMismatchError, match=f"SIGHTLINE_{name.upper()}={built[name]}.*--rebuild --library"):
        check_settings({"settings": built}, settings, "/index")
    check_settings({"settings": {**built, name: getattr(settings, name)}}, settings, "/index")


@pytest.mark.parametrize("card", [None, [], {}, {"model": "m"}])
def test_an_index_that_does_not_say_its_model_is_refused(card: Any) -> None:
    with pytest.raises(StoreError, match="--rebuild"):
        card_of({"embedder": card})
