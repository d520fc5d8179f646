"""What each kind of server is asked and how it answers.

``sightline``
    ``POST /v1/embeddings`` with a list of ``{"text", "image", "video", "instruction"}``; ``POST /v1/rerank`` with the
    same for the query and the documents.
``vllm``
    ``POST /v1/embeddings`` with one conversation a request: system turn (the instruction), user turn, *empty* assistant
    turn, ``continue_final_message`` and ``add_special_tokens``. Without these five the vectors are wrong, silently: the
    template's own system prompt, no assistant turn or no ``<|endoftext|>``, whose state is the vector.
    ``POST /v1/rerank`` with ``content`` lists; the server must run with the model's reranking template and
    ``is_original_qwen3_reranker``.
``dashscope``
    ``…/services/embeddings/multimodal-embedding/multimodal-embedding`` with ``contents``, fused where an item is more
    than one; ``…/services/rerank/text-rerank/text-rerank``. A video must be an address that the service can fetch.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sightline.errors import ConfigError, MediaError, RemoteError
from sightline.prep.prompt import EMBED_INSTRUCTION, NOTHING, punctuated
from sightline.remote.batches import Limits
from sightline.remote.calls import Caller
from sightline.remote.parts import Clip, Film, Part

Kind: TypeAlias = Literal["sightline", "vllm", "dashscope"]


class Dialect(Protocol):
    """How to talk to one kind of server."""

    @property
    def embeds(self) -> Limits:
        """What one request for vectors may hold."""
        ...

    @property
    def ranks(self) -> Limits:
        """What one request for scores may hold, beside the query."""
        ...

    def check(self, part: Part, *, ranked: bool) -> None:
        """Nothing, if this kind of server takes such an item for its vector or its rank. Raises ``MediaError``."""
        ...

    def embed(
        self, caller: Caller, model: str, parts: Sequence[Part], instruction: str | None, dim: int | None
    ) -> list[NDArray[np.float32]]:
        """One vector for each part, as the server gives it. Raises ``RemoteError``."""
        ...

    def rank(
        self, caller: Caller, model: str, query: Part, documents: Sequence[Part], instruction: str | None
    ) -> list[float]:
        """One score for each document, in their order. Raises ``RemoteError``."""
        ...


class Sightline:
    """Another Sightline."""

    embeds: Final = Limits(items=32)
    ranks: Final = Limits(items=32, media=48)

    def check(self, part: Part, *, ranked: bool) -> None:
        """The rate of the frames is said once an item, so there can be only one video."""
        if len(part.videos) > 1:
            raise MediaError("unsupported", "an item that is sent to a server holds one video")

    def embed(
        self, caller: Caller, model: str, parts: Sequence[Part], instruction: str | None, dim: int | None
    ) -> list[NDArray[np.float32]]:
        """See ``Dialect``."""
        body: dict[str, Any] = {
            "model": model,
            "input": [self._part(part, part.instruction or instruction) for part in parts],
            "encoding_format": "base64",
        }
        if dim is not None:
            body["dimensions"] = dim
        return _openai_vectors(caller, caller.post("/v1/embeddings", body), len(parts))

    def rank(
        self, caller: Caller, model: str, query: Part, documents: Sequence[Part], instruction: str | None
    ) -> list[float]:
        """See ``Dialect``."""
        body = {
            "model": model,
            "query": self._part(query, query.instruction or instruction),
            "documents": [self._part(part, None) for part in documents],
            "return_documents": False,
        }
        return _scores(caller, _at(caller.post("/v1/rerank", body), "results"), len(documents))

    def _part(self, part: Part, instruction: str | None) -> dict[str, Any]:
        value: dict[str, Any] = {}
        texts = [text for text in part.texts if text]
        if texts or not part.num_media:
            value["text"] = texts or [NOTHING]
        if part.images:
            value["image"] = list(part.images)
        for video in part.videos:
            if isinstance(video, Film):
                value |= {"video": [video.url], "fps": video.rate, "max_frames": video.num_frames}
        if instruction:
            value["instruction"] = instruction
        return value


class VLLM:
    """vLLM's OpenAI-compatible server (0.14 and later), with a Qwen3-VL-Embedding or -Reranker checkpoint."""

    embeds: Final = Limits(items=1)
    ranks: Final = Limits(items=16)

    def check(self, part: Part, *, ranked: bool) -> None:
        """Everything is taken."""

    def embed(
        self, caller: Caller, model: str, parts: Sequence[Part], instruction: str | None, dim: int | None
    ) -> list[NDArray[np.float32]]:
        """See ``Dialect``; one part a request."""
        vectors = []
        for part in parts:
            system = punctuated(part.instruction or instruction or "") or EMBED_INSTRUCTION
            body: dict[str, Any] = {
                "model": model,
                "messages": [
                    {"role": "system", "content": [{"type": "text", "text": system}]},
                    {"role": "user", "content": self._content(part)},
                    {"role": "assistant", "content": [{"type": "text", "text": ""}]},
                ],
                "continue_final_message": True,
                "add_special_tokens": True,
                "encoding_format": "base64",
                **_frame_times(part),
            }
            if dim is not None:
                body["dimensions"] = dim
            vectors += _openai_vectors(caller, caller.post("/v1/embeddings", body), 1)
        return vectors

    def rank(
        self, caller: Caller, model: str, query: Part, documents: Sequence[Part], instruction: str | None
    ) -> list[float]:
        """See ``Dialect``. The instruction is the template's own unless one is given."""
        body: dict[str, Any] = {
            "model": model,
            "query": {"content": self._content(query)},
            "documents": [{"content": self._content(part)} for part in documents],
        }
        told = query.instruction or instruction
        if told:
            body["instruction"] = told
        return _scores(caller, _at(caller.post("/v1/rerank", body), "results"), len(documents))

    def _content(self, part: Part) -> list[dict[str, Any]]:
        """Videos, then images, then texts, as the official code arranges them."""
        content: list[dict[str, Any]] = [
            {"type": "video_url", "video_url": {"url": _joined(video)}}
            for video in part.videos
            if isinstance(video, Clip)
        ]
        content += [{"type": "image_url", "image_url": {"url": url}} for url in part.images]
        content += [{"type": "text", "text": text} for text in part.texts]
        return content or [{"type": "text", "text": NOTHING}]


class DashScope:
    """Alibaba Cloud Model Studio, for example ``https://dashscope.aliyuncs.com``."""

    embeds: Final = Limits(items=10, media=5, bytes=8 * 2**20)
    ranks: Final = Limits(items=40, media=40, bytes=8 * 2**20)
    EMBED_PATH: Final = "/api/v1/services/embeddings/multimodal-embedding/multimodal-embedding"
    RANK_PATH: Final = "/api/v1/services/rerank/text-rerank/text-rerank"

    def check(self, part: Part, *, ranked: bool) -> None:
        """A video must be an address; the query and each document are one text, one image or one video."""
        if any(isinstance(video, Clip) for video in part.videos):
            raise MediaError("unsupported", "this server takes videos as public addresses only")
        if ranked and len(self._contents(part)) > 1:
            raise MediaError("unsupported", "this server ranks items of one text, one image or one video")

    def embed(
        self, caller: Caller, model: str, parts: Sequence[Part], instruction: str | None, dim: int | None
    ) -> list[NDArray[np.float32]]:
        """See ``Dialect``; neighbours with one content and one instruction share a request, others go alone."""
        vectors: list[NDArray[np.float32]] = []
        waiting: list[dict[str, str]] = []
        told: str | None = None

        def send(contents: list[dict[str, str]], told: str | None, *, fused: bool) -> None:
            parameters: dict[str, Any] = {"enable_fusion": True} if fused else {}
            if dim is not None:
                parameters["dimension"] = dim
            if told:
                parameters["instruct"] = told
            body = {"model": model, "input": {"contents": contents}, "parameters": parameters}
            answer = _at(caller.post(self.EMBED_PATH, body), "output", "embeddings")
            vectors.extend(_indexed(caller, answer, 1 if fused else len(contents)))

        for part in parts:
            contents, own = self._contents(part), part.instruction or instruction
            if waiting and (len(contents) > 1 or own != told):
                send(waiting, told, fused=False)
                waiting = []
            if len(contents) > 1:
                send(contents, own, fused=True)
            else:
                waiting, told = [*waiting, *contents], own
        if waiting:
            send(waiting, told, fused=False)
        return vectors

    def rank(
        self, caller: Caller, model: str, query: Part, documents: Sequence[Part], instruction: str | None
    ) -> list[float]:
        """See ``Dialect``."""
        parameters: dict[str, Any] = {"return_documents": False, "top_n": len(documents)}
        told = query.instruction or instruction
        if told:
            parameters["instruct"] = told
        body = {
            "model": model,
            "input": {
                "query": self._contents(query)[0],
                "documents": [self._contents(part)[0] for part in documents],
            },
            "parameters": parameters,
        }
        return _scores(caller, _at(caller.post(self.RANK_PATH, body), "output", "results"), len(documents))

    def _contents(self, part: Part) -> list[dict[str, str]]:
        contents = [{"video": video} for video in part.videos if isinstance(video, str)]
        contents += [{"image": url} for url in part.images]
        contents += [{"text": text} for text in part.texts if text]
        return contents or [{"text": NOTHING}]


DIALECTS: Final[dict[str, type[Sightline] | type[VLLM] | type[DashScope]]] = {
    "sightline": Sightline,
    "vllm": VLLM,
    "dashscope": DashScope,
}


def dialect(kind: str) -> Dialect:
    """The dialect of a kind of server.

    Raises:
        ConfigError: no such kind.
    """
    if kind not in DIALECTS:
        raise ConfigError(f"kind is one of {', '.join(DIALECTS)}, not {kind!r}")
    return DIALECTS[kind]()


def _joined(video: Clip) -> str:
    """Frames in one address, as vLLM takes a video whose frames the caller has chosen."""
    head = video.frames[0].partition(";")[0].replace("data:image/", "data:video/")
    return f"{head};base64," + ",".join(url.partition(",")[2] for url in video.frames)


def _frame_times(part: Part) -> dict[str, Any]:
    """Where the frames stand in their video, and that the server shall take them all."""
    clips = [video for video in part.videos if isinstance(video, Clip)]
    if len(clips) != 1:
        return {}
    clip = clips[0]
    total = clip.indices[-1] + 1
    times = {
        "fps": clip.fps,
        "frames_indices": list(clip.indices),
        "total_num_frames": total,
        "duration": total / clip.fps,
        "do_sample_frames": False,
    }
    return {"media_io_kwargs": {"video": times}, "mm_processor_kwargs": {"do_sample_frames": False}}


def _strange(caller: Caller) -> RemoteError:
    return RemoteError(f"{caller.url} gave an answer of another shape; is kind= right?", status=0)


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _openai_vectors(caller: Caller, answer: Any, count: int) -> list[NDArray[np.float32]]:
    return _indexed(caller, _at(answer, "data"), count)


def _indexed(caller: Caller, entries: Any, count: int) -> list[NDArray[np.float32]]:
    """Vectors by their ``index``; floats or base64 of little-endian float32."""
    found: dict[int, NDArray[np.float32]] = {}
    for place, entry in enumerate(entries if isinstance(entries, list) else []):
        value = _at(entry, "embedding")
        try:
            if isinstance(value, str):
                vector = np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float32)
            else:
                with np.errstate(over="ignore"):  # what is too large for a float32 becomes inf, which is refused later
                    vector = np.asarray(value, np.float32)
        except (ValueError, TypeError, binascii.Error):
            raise _strange(caller) from None
        index = _at(entry, "index")
        found[index if isinstance(index, int) else place] = vector
    if sorted(found) != list(range(count)) or any(vector.ndim != 1 or not vector.size for vector in found.values()):
        raise _strange(caller)
    return [found[place] for place in range(count)]


def _scores(caller: Caller, results: Any, count: int) -> list[float]:
    """Scores by their ``index``: servers answer best first."""
    found: dict[int, float] = {}
    for entry in results if isinstance(results, list) else []:
        index, score = _at(entry, "index"), _at(entry, "relevance_score")
        if isinstance(index, int) and isinstance(score, (int, float)):
            found[index] = float(score)
    if sorted(found) != list(range(count)):
        raise _strange(caller)
    return [found[place] for place in range(count)]
