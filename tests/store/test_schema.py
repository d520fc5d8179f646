"""Ids, filters, and what is refused."""

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from sightline.errors import ConfigError, StoreError
from sightline.store.lance import ESCAPE, _pack, _unpack
from sightline.store.schema import Condition, Filter, Row, path_id, row_id, unit_vector


def test_ids_are_for_ever() -> None:
    # an index built by an older version must be found again: these change only with the format
    assert row_id("abc", "page", 3, None, None, "f00d") == "d8e6a47171a9f7c5c3b720c4196c3b9e"
    assert path_id("/a") == "db76cbc1d6088f8f490e21f85b641d6f"


def test_every_part_makes_another_id() -> None:
    parts: dict[str, Any] = {
        "content_hash": "c",
        "kind": "moment",
        "page": None,
        "start_s": 1.0,
        "end_s": 2.0,
        "fingerprint": "f",
        "ordinal": 0,
    }
    changes: list[dict[str, Any]] = [
        {}, {"content_hash": "d"}, {"kind": "video"}, {"page": 1}, {"page": 0}, {"start_s": 1.000001}, {"start_s": None},
        {"end_s": 1.0}, {"fingerprint": "g"}, {"ordinal": 1}, {"path_id": "p"}, {"content_hash": "c1", "page": 1},
    ]  # fmt: skip
    ids = [row_id(**{**parts, **change}) for change in changes]
    assert len(set(ids)) == len(ids)
    assert row_id(**{**parts, "start_s": 0.1 + 0.2}) == row_id(**{**parts, "start_s": 0.3})
    assert path_id("/a") != path_id("/b") and path_id("/caf\udce9") != path_id("/café")


def test_filters_read_texts_and_mappings_alike() -> None:
    midnight = datetime.datetime(2024, 1, 31).timestamp()
    text = Filter.of(
        "kind=page,image path='/a b/c' after=2024-01-31 before=2024-02-01T12:00:00Z rating>=4 who='it\\'s \"me\"'"
    )
    assert text == Filter(
        kinds=("image", "page"), path_prefix="/a b/c", after_s=midnight, before_s=1706788800.0,
        columns=(Condition(name="rating", operator=">=", value=4), Condition(name="who", operator="=", value="it's \"me\"")),
    )  # fmt: skip
    mapping = {"kind": ["image", "page"], "path": "/a b/c", "after": datetime.date(2024, 1, 31), "before": 1706788800,
               "rating>=": 4, "who": "it's \"me\""}  # fmt: skip
    assert Filter.of(mapping) == text
    assert Filter.of({"kind": "page", "path": "/home/a/Papers", "after": "2024-01-31", "rating": 5}) == Filter.of(
        "kind=page path=/home/a/Papers after=2024-01-31 rating=5"
    )
    assert Filter.of(text) is text
    nothings: list[Any] = [None, "", "  ", {}]
    for nothing in nothings:
        assert Filter.of(nothing) == Filter() and not Filter.of(nothing)
    assert Filter.of("x=0") and Filter.of("after=0000000000")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=5", 5), ("x=-5", -5), ("x=5.0", 5.0), ("x=1e3", 1000.0), ("x=.5", 0.5), ("x='5'", "5"), ('x="5"', "5"), ("x=true", True),
        ("x=False", False), ("x='true'", "true"), ("x=nan", "nan"), ("x=inf", "inf"), ("x=1_000", "1_000"), ("x=2024-01-31", "2024-01-31"),
        ("x=''", ""), ("x = a", "a"), ("x=a=b", "a=b"), ("x=日本", "日本"), ("x='a\\\\b'", "a\\b"), ("x=a\\b", "a\\b"), ("x='a\nb'", "a\nb"),
    ],
)  # fmt: skip
def test_values_of_a_text(text: str, value: Any) -> None:
    (condition,) = Filter.of(text).columns
    assert condition.value == value and type(condition.value) is type(value)


@pytest.mark.parametrize(
    "wrong",
    [
        "x==5", "x=>5", "x~5", "x:5", "x<>5", "x=", "=5", "5=5", "x", "x=1 y", "x='a'b", "x='a", 'x="a', "kind=foo", "kind=", "kind=''",
        "kind=page kind=page", "kind!=page", "path>/a", "path=''", "after=yesterday", "after=2024-13-01", "after>2024-01-01", "after=''",
        "before=true", "x<true", "x=99999999999999999999", "x" * 64 + "=1", "x-y=1",
        {"x": None}, {"x": [1]}, {"x": {}}, {"x?": 1}, {"": 1}, {3: 1}, {"kind": []}, {"kind": 5}, {"path": 5}, {"path": ""}, {"path": "a\0"},
        {"after": []}, {"after": float("nan")}, {"after": 10**400}, {"after": True}, {"x": float("inf")}, {"x": b"a"}, 5, ["x=5"],
    ],
    ids=repr,
)  # fmt: skip
def test_filters_that_cannot_be_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        Filter.of(wrong)


@given(st.text())
def test_any_text_is_a_filter_or_a_config_error(text: str) -> None:
    try:
        Filter.of(text)
    except ConfigError as error:
        assert str(error)


@given(st.text(), st.booleans())
def test_a_quoted_value_is_that_text(value: str, double: bool) -> None:
    mark = '"' if double else "'"
    quoted = value.replace("\\", "\\\\").replace(mark, "\\" + mark)
    (condition,) = Filter.of(f"a=1 x={mark}{quoted}{mark}").columns[1:]
    assert condition.value == value


def test_paths_of_a_filter_are_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    paths = {"x": str(tmp_path / "x"), "~/x": "/home/me/x", "/a/../b/": "/b", "/": "/", ".": str(tmp_path)}
    assert {given_: Filter.of({"path": given_}).path_prefix for given_ in paths} == paths
    assert Filter.of({"path": b"/caf\xe9"}).path_prefix == "/caf\udce9"
    assert Filter.of("path=~/x").path_prefix == "/home/me/x"


def test_unit_vectors() -> None:
    for vector in (
        [3, 4],
        np.array([3e-200, 4e-200]),
        np.array([3e200, 4e200]),
        np.array([3, 4], np.float16),
        np.array([3, 4], np.int8),
    ):
        unit = unit_vector(np.asarray(vector), 2, "v")
        assert unit.dtype == np.float32
        np.testing.assert_allclose(unit, [0.6, 0.8], rtol=1e-6)
    with pytest.raises(StoreError, match=r"v: .* 2 numbers, not complex128"):
        unit_vector(np.array([1j, 0]), 2, "v")


@pytest.mark.parametrize("change", [{"id": ""}, {"path_id": ""}, {"kind": "sound"}, {"modified_s": float("nan")}])
def test_rows_that_cannot_be_are_refused(make_row: Callable[..., Row], change: dict[str, Any]) -> None:
    with pytest.raises(StoreError):
        make_row(1, **change)


@given(st.text(st.characters(exclude_categories=[]) | st.sampled_from([ESCAPE, "\udce9", "\ud83d", "/"])), st.text())
def test_any_text_can_be_kept_in_utf8(text: str, more: str) -> None:
    packed = _pack(text)
    packed.encode()
    assert _unpack(packed) == text
    assert _pack(text + more) == packed + _pack(more), "what starts with a folder still does"
