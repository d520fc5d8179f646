"""What each kind of server is sent, and that the answers come back in order."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.errors import ConfigError, ItemError, MediaError, RemoteError
from sightline.media.reader import Reader
from sightline.protocols import EmbeddingModel, ItemLike, RerankingModel
from sightline.remote import RemoteEmbedder, RemoteReranker
from sightline.settings import Settings
from sightline.testing import ToyEmbedder, ToyReranker
from sightline.types import Item, VideoFrames
from tests.remote.fake import Fake, picture

RED = np.full((40, 60, 3), (220, 10, 10), np.uint8)
BLUE = np.full((40, 60, 3), (10, 10, 220), np.uint8)
CLIP = VideoFrames(frames=np.stack([RED, BLUE, RED]), indices=(0, 25, 50), fps=25.0)
KINDS = ["sightline", "vllm", "dashscope"]
ITEMS: list[ItemLike] = [
    "a red bicycle",
    Item(image=RED),
    Item(text="in green", image=BLUE),
    Item(text="two\nlines"),
    Item(),
]
PLAIN: list[ItemLike] = [
    "a red bicycle",
    Item(image=RED),
    Item(text="in green", image=BLUE),
    Item(text="two\nlines"),
    Item(text="NULL"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_model_in_order_and_of_length_one(fake: Fake, kind) -> None:
    with RemoteEmbedder(fake.url, "toy", kind=kind) as embedder:
        assert isinstance(embedder, EmbeddingModel)
        assert embedder.card.dim == 64
        vectors = embedder.embed(ITEMS)
    wanted = ToyEmbedder().embed(PLAIN)
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, wanted, atol=1e-6)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_stand_where_their_documents_stood(fake: Fake, kind) -> None:
    documents: list[ItemLike] = ["a blue car", "a red bicycle", Item(image=RED), Item(image=BLUE)]
    with RemoteReranker(fake.url, "toy-reranker", kind=kind) as reranker:
        assert isinstance(reranker, RerankingModel)
        scores = reranker.score("a red bicycle", documents)
    assert np.allclose(scores, ToyReranker().score("a red bicycle", documents), atol=1e-6)
    assert reranker.score("nothing", []).shape == (0,)


def test_many_items_come_back_in_order_over_many_requests(fake: Fake) -> None:
    texts = [f"word{n} and word{n + 1}" for n in range(150)]
    embedder = RemoteEmbedder(fake.url)
    assert np.allclose(embedder.embed(texts), ToyEmbedder().embed(texts), atol=1e-6)
    assert max(len(body["input"]) for body in fake.posts("/v1/embeddings")) == 32


def test_dim_and_precision_are_cut_here(fake: Fake) -> None:
    fake.embedder = ToyEmbedder(dim=128)
    embedder = RemoteEmbedder(fake.url)
    full = embedder.embed(["a", "b"])
    short = embedder.embed(["a", "b"], dim=64)
    assert np.allclose(short, full[:, :64] / np.linalg.norm(full[:, :64], axis=1, keepdims=True), atol=1e-6)
    assert embedder.embed(["a"], precision="binary").shape == (1, 16)
    assert embedder.embed([], dim=64).shape == (0, 64)
    with pytest.raises(ConfigError):
        embedder.embed(["a"], dim=63)


# --- Sightline -------------------------------------------------------------------------------------------------------


def test_a_sightline_server_gives_its_card_and_is_asked_in_its_shape(fake: Fake) -> None:
    embedder = RemoteEmbedder(fake.url)
    assert embedder.card == fake.embedder.card
    embedder.embed([Item(text="a", image=RED, instruction="Own."), "b"], instruction="For all")
    (body,) = fake.posts("/v1/embeddings")
    assert body["model"] == "toy" and body["encoding_format"] == "base64"
    first, second = body["input"]
    assert first["text"] == ["a"] and first["instruction"] == "Own."
    assert np.array_equal(picture(first["image"][0]), RED), "PNG loses nothing"
    assert second == {"text": ["b"], "instruction": "For all"}


def test_a_sightline_video_is_a_file_of_its_frames_with_their_times(fake: Fake) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 36, 50, 3), np.uint8)
    clip = VideoFrames(frames=noise, indices=(0, 25, 50, 75), fps=25.0)
    RemoteEmbedder(fake.url).embed([Item(video=clip)])
    (part,) = fake.posts("/v1/embeddings")[0]["input"]
    assert part["fps"] == 1.0 and part["max_frames"] == 4
    (url,) = part["video"]
    assert url.startswith("data:video/x-matroska;base64,")
    taken = Reader(Settings()).video(url, fps=part["fps"], max_frames=part["max_frames"])
    assert isinstance(taken, VideoFrames)
    assert np.array_equal(taken.frames, noise), "nothing is lost"
    assert [index / taken.fps for index in taken.indices] == pytest.approx([0, 1, 2, 3], abs=0.01)


def test_an_odd_number_of_frames_is_made_even_and_two_videos_are_refused(fake: Fake) -> None:
    embedder = RemoteEmbedder(fake.url)
    embedder.embed([Item(video=CLIP)])
    assert fake.posts("/v1/embeddings")[0]["input"][0]["max_frames"] == 4
    with pytest.raises(ItemError, match="one video"):
        embedder.embed([Item(video=[CLIP, CLIP])])


def test_a_model_that_the_server_lacks_is_named_with_those_it_has(fake: Fake) -> None:
    with pytest.raises(RemoteError, match="no embedder other; it has toy"):
        _ = RemoteEmbedder(fake.url, "other").card
    with pytest.raises(RemoteError, match="no reranker toy; it has toy-reranker"):
        _ = RemoteReranker(fake.url, "toy").card


def test_a_server_of_another_kind_is_told_apart(fake: Fake) -> None:
    fake.plan = lambda asked: (200, {}, {"data": [{"id": "m"}]}) if asked.path == "/v1/models" else None
    with pytest.raises(RemoteError, match="kind="):
        _ = RemoteEmbedder(fake.url).card


# --- vLLM ------------------------------------------------------------------------------------------------------------


def test_vllm_is_asked_with_the_fields_that_make_its_vectors_right(fake: Fake) -> None:
    embedder = RemoteEmbedder(fake.url, "Qwen/Qwen3-VL-Embedding-2B", kind="vllm")
    embedder.embed([Item(text="words", image=RED)], instruction="Find the picture")
    body = fake.posts("/v1/embeddings")[-1]
    system, user, assistant = body["messages"]
    assert system == {"role": "system", "content": [{"type": "text", "text": "Find the picture."}]}
    assert [part["type"] for part in user["content"]] == ["image_url", "text"], "media before words"
    assert assistant == {"role": "assistant", "content": [{"type": "text", "text": ""}]}
    assert body["continue_final_message"] is True and body["add_special_tokens"] is True
    assert "input" not in body


def test_vllm_without_an_instruction_gets_the_default_one(fake: Fake) -> None:
    RemoteEmbedder(fake.url, "m", kind="vllm").embed(["a"])
    assert fake.posts("/v1/embeddings")[-1]["messages"][0]["content"][0]["text"] == "Represent the user's input."


def test_vllm_is_told_where_the_frames_stand(fake: Fake) -> None:
    RemoteEmbedder(fake.url, "m", kind="vllm").embed([Item(video=CLIP)])
    body = fake.posts("/v1/embeddings")[-1]
    (video,) = body["messages"][1]["content"]
    assert video["video_url"]["url"].startswith("data:video/png;base64,")
    assert video["video_url"]["url"].count(",") == 3
    assert body["media_io_kwargs"]["video"]["frames_indices"] == [0, 25, 50]
    assert body["media_io_kwargs"]["video"]["fps"] == 25.0
    assert body["mm_processor_kwargs"] == {"do_sample_frames": False}


def test_vllm_ranks_contents_and_gets_an_instruction_only_when_there_is_one(fake: Fake) -> None:
    reranker = RemoteReranker(fake.url, "m", kind="vllm")
    reranker.score("q", ["a", Item(text="b", image=RED)])
    reranker.score(Item(text="q", instruction="Own"), ["a"], instruction="For all")
    first, second = fake.posts("/v1/rerank")
    assert "instruction" not in first and second["instruction"] == "Own"
    assert [part["type"] for part in first["documents"][1]["content"]] == ["image_url", "text"], "one document, not two"


def test_other_servers_have_a_fingerprint_of_kind_and_name_whatever_their_address(fake: Fake) -> None:
    card = RemoteEmbedder(fake.url, "m", kind="vllm").card
    other = RemoteEmbedder(fake.url.replace("127.0.0.1", "localhost"), "m", kind="vllm").card
    assert card == other and len(card.fingerprint) == 16 and card.dim == 64
    assert RemoteEmbedder(fake.url, "n", kind="vllm").card.fingerprint != card.fingerprint
    assert RemoteEmbedder(fake.url, "m", kind="dashscope").card.fingerprint != card.fingerprint


# --- DashScope -------------------------------------------------------------------------------------------------------


def test_dashscope_fuses_what_is_one_item_and_keeps_the_others_apart(fake: Fake) -> None:
    embedder = RemoteEmbedder(fake.url, "qwen3-vl-embedding", kind="dashscope", dim=64)
    path = "/api/v1/services/embeddings/multimodal-embedding/multimodal-embedding"
    _ = embedder.card
    embedder.embed(["a", "b", Item(text="c", image=RED), Item(text="d", instruction="Own")])
    single, fused, own = fake.posts(path)[1:]
    assert single["input"]["contents"] == [{"text": "a"}, {"text": "b"}] and single["parameters"] == {"dimension": 64}
    assert fused["parameters"]["enable_fusion"] is True and len(fused["input"]["contents"]) == 2
    assert own["parameters"]["instruct"] == "Own"


def test_dashscope_takes_videos_as_addresses_only(fake: Fake) -> None:
    embedder = RemoteEmbedder(fake.url, "m", kind="dashscope")
    with pytest.raises(ItemError, match="public addresses") as caught:
        embedder.embed(["a", Item(video=CLIP)])
    assert caught.value.position == 1 and caught.value.code == "unsupported"
    reranker = RemoteReranker(fake.url, "m", kind="dashscope")
    with pytest.raises(ItemError) as caught:
        reranker.score("q", ["a", Item(text="b", image=RED)])
    assert caught.value.position == 1
    with pytest.raises(MediaError):
        reranker.score(Item(text="q", image=RED), ["a"])


# --- pictures --------------------------------------------------------------------------------------------------------


def test_a_large_picture_is_sent_as_large_as_the_model_would_make_it(fake: Fake) -> None:
    large = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    RemoteEmbedder(fake.url, image_format="jpeg").embed([Item(image=large)])
    (url,) = fake.posts("/v1/embeddings")[-1]["input"][0]["image"]
    assert url.startswith("data:image/jpeg;base64,")
    height, width, _ = picture(url).shape
    assert (height, width) == (1152, 1536) and height * width <= 1_843_200


def test_a_wrong_option_is_said_before_anything_is_asked(fake: Fake) -> None:
    for options in (
        {"kind": "other"},
        {"image_format": "gif"},
        {"kind": "vllm"},
        {"key": "two\nlines"},
        {"concurrency": 0},
        {"timeout_s": 0},
    ):
        with pytest.raises(ConfigError):
            RemoteEmbedder(fake.url, **options)
    for url in ("ftp://host", "http://user:pass@host", "host:80", "http://", "http://host?key=1", "http://host:99999"):
        with pytest.raises(ConfigError):
            RemoteEmbedder(url)
    assert fake.asked == []
