"""mteb itself evaluates Sightline's models on small tasks of our own, without a network."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sightline import Embedder
from sightline.testing import ToyEmbedder, ToyReranker
from sightline.types import Item
from tests.cli.toys import Judge, Seeing

pytest.importorskip("mteb", reason="the extra eval is not installed")
import mteb
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType

from sightline.integrations.mteb import CrossEncoder, Encoder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

COLOURS = {"red": (220, 10, 10), "blue": (10, 10, 220), "green": (10, 160, 10)}


def about(name: str, kind: str, category: str, modalities: list[str], prompt) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        description="Three things to be found.",
        reference="https://example.org",
        dataset={"path": "local/none", "revision": "0" * 40},
        type=kind,
        category=category,
        modalities=modalities,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        prompt=prompt,
        date=("2026-01-01", "2026-01-02"),
        domains=["Web"],
        task_subtypes=[],
        license="cc0-1.0",
        annotations_creators="derived",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )


def split(queries, corpus, ranked=None):
    relevant = {f"q{n}": {f"d{n}": 1} for n in range(len(queries))}
    return {
        "queries": Dataset.from_list([{"id": f"q{n}", **one} for n, one in enumerate(queries)]),
        "corpus": Dataset.from_list([{"id": f"d{n}", **one} for n, one in enumerate(corpus)]),
        "relevant_docs": relevant,
        "top_ranked": ranked,
    }


class Texts(AbsTaskRetrieval):  # type: ignore[misc]
    metadata = about("SightlineTexts", "Retrieval", "t2t", ["text"], {"query": "Find the thing"})

    def load_data(self, **kwargs):
        texts = ["a red bicycle", "flour water salt", "the blue sea"]
        self.dataset = {
            "default": {"test": split([{"text": t.split()[-1]} for t in texts], [{"text": t} for t in texts])}
        }
        self.data_loaded = True


class Reranked(AbsTaskRetrieval):  # type: ignore[misc]
    metadata = about("SightlineReranked", "Reranking", "t2t", ["text"], "Find the thing")

    def load_data(self, **kwargs):
        texts = ["a red bicycle", "flour water salt", "the blue sea"]
        ranked = {f"q{n}": ["d0", "d1", "d2"] for n in range(3)}
        data = split([{"text": t.split()[-1]} for t in texts], [{"text": t} for t in texts], ranked)
        self.dataset = {"default": {"test": data}}
        self.data_loaded = True


class Fused(AbsTaskRetrieval):  # type: ignore[misc]
    """Pictures with words are to be found by pictures."""

    metadata = about("SightlineFused", "Any2AnyRetrieval", "i2it", ["text", "image"], {"query": "Find the colour."})

    def load_data(self, **kwargs):
        pictures = [Image.fromarray(np.full((32, 32, 3), colour, np.uint8)) for colour in COLOURS.values()]
        corpus = [{"text": f"thing {n}", "image": one} for n, one in enumerate(pictures)]
        self.dataset = {"default": {"test": split([{"image": one} for one in pictures], corpus)}}
        self.data_loaded = True


def score(model, task) -> float:
    done = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return float(done.task_results[0].get_score())


class Listening(ToyEmbedder):
    """Remembers what it was told."""

    told: list[str | None]

    def stream(self, items, *, instruction=None, **options):
        self.told = [*getattr(self, "told", []), instruction]
        return super().stream(items, instruction=instruction, **options)


def test_mteb_evaluates_texts_and_gives_the_prompt_as_the_published_models_get_it() -> None:
    toy = Listening()
    assert score(Encoder(toy), Texts()) == 1.0
    assert set(toy.told) == {"Find the thing.", "Represent the user's input."}, "for queries; for documents"


def test_mteb_evaluates_pictures_and_fused_documents() -> None:
    assert score(Encoder(Seeing(model="toy")), Fused()) == 1.0


def test_mteb_evaluates_a_reranker_as_a_cross_encoder() -> None:
    assert score(CrossEncoder(Judge()), Reranked()) == 1.0


def test_mteb_takes_the_built_in_model() -> None:
    assert 0.0 <= score(Encoder(Embedder.load("builtin")), Texts()) <= 1.0


def test_the_protocols_of_mteb_are_met_and_the_model_has_a_name_of_its_own() -> None:
    encoder, crossing = Encoder(ToyEmbedder()), CrossEncoder(ToyReranker())
    assert isinstance(encoder, mteb.EncoderProtocol) and isinstance(crossing, mteb.CrossEncoderProtocol)
    assert encoder.mteb_model_meta.name == "sightline/toy" and encoder.mteb_model_meta.embed_dim == 64
    assert Encoder(ToyEmbedder(model="Qwen/Q")).mteb_model_meta.name == "Qwen/Q"
    assert Encoder(ToyEmbedder(model="/home/ada/m")).mteb_model_meta.name == "sightline/home__ada__m"


def test_one_query_is_scored_once_for_all_its_documents() -> None:
    calls = []

    class Counting(ToyReranker):
        def score(self, query, documents, *, instruction=None):
            calls.append((Item.of(query).texts, len(documents), instruction))
            return super().score(query, documents, instruction=instruction)

    scores = CrossEncoder(Counting()).predict(
        [{"text": ["a", "a"]}, {"text": ["a", "b"]}],
        [{"text": ["x", "y"]}, {"text": ["z", "b"]}],
        task_metadata=Reranked.metadata,
        hf_split="test",
        hf_subset="default",
    )
    assert scores.shape == (4,)
    assert calls == [(("a",), 3, "Find the thing."), (("b",), 1, "Find the thing.")]


def test_the_instruction_of_documents_is_the_default_when_the_task_has_none() -> None:
    encoder = Encoder(ToyEmbedder())
    assert encoder.get_task_instruction(Texts.metadata, PromptType.document) == "Represent the user's input."
    assert encoder.get_task_instruction(Texts.metadata, PromptType.query) == "Find the thing."
    assert encoder.get_task_instruction(Reranked.metadata, PromptType.document) == "Find the thing."
