"""The public names are a list that changes on purpose."""

import inspect

import pytest

import sightline

PUBLIC = {
    "__version__",
    *{"Embedder", "Reranker", "Library", "Item", "Hit", "VideoFrames", "ModelCard", "AddReport", "Skipped", "Settings"},
    *{"SightlineError", "InputError", "ItemError", "MediaError", "PromptError", "ConfigError", "WeightsError"},
    *{"CapacityError", "StoreError", "IndexMismatchError", "IndexLockedError", "RemoteError", "MissingExtraError"},
}


def test_public_names() -> None:
    assert set(sightline.__all__) == PUBLIC
    assert set(dir(sightline)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_every_public_name_resolves_and_says_what_it_is(name: str) -> None:
    value = getattr(sightline, name)
    assert inspect.getdoc(value)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        getattr(sightline, "Nope")  # noqa: B009


def signature(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_signatures_are_the_contract() -> None:
    from sightline import Embedder, Hit, Item, Library, Reranker

    loading = ["model", "device", "dtype", "revision", "max_length", "min_pixels", "max_pixels"]
    assert signature(Embedder.load)[:10] == [*loading, "total_pixels", "fps", "max_frames"]
    assert signature(Embedder.embed) == ["self", "items", "instruction", "dim", "precision", "progress"]
    assert signature(Reranker.load)[:5] == ["model", "device", "dtype", "revision", "max_length"]
    assert signature(Reranker.score) == ["self", "query", "documents", "instruction"]
    assert signature(Library.open)[:3] == ["path", "embedder", "reranker"]
    wanted = {"k": 10, "rerank": 50, "where": None, "min_score": None, "instruction": None}
    parameters = inspect.signature(Library.search).parameters
    assert {name: parameters[name].default for name in wanted} == wanted
    assert {"add", "remove", "search", "stats", "check"} <= set(dir(Library))
    assert {
        "score",
        "recall_score",
        "rerank_score",
        "kind",
        "path",
        "page",
        "start_s",
        "end_s",
        "title",
        "snippet",
    } <= set(Hit.__dataclass_fields__)
    assert set(Item.__dataclass_fields__) == {"text", "image", "video", "instruction", "fps", "max_frames"}
