"""JSON shapes that several routes share: what an item looks like from outside, and how an error does.

An item may be written in the ways that clients know; all of them are one ``Part`` after they are read::

    "a red bicycle"                                            words
    {"text": …, "image": …, "video": …}                        Sightline, Jina; each is one value or a list
    {"content": [{"type": "text", …}, {"type": "image_url", …}]}   Cohere, vLLM's score
    [{"type": "text", …}, {"type": "image_url", …}]            the content of a chat message
    messages: [{"role": "user", "content": …}]                 vLLM's chat embeddings

Pictures and videos are ``data:`` URLs, plain base64, or addresses where the server fetches those; ``attachments``
turns them into pixels. Nothing is decoded here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

ONLY_TEXT: Final = (
    "token ids are not taken, because they belong to another tokenizer; send the text itself"
    " (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
)


class Shape(BaseModel):
    """A request or a part of one: an unknown key is an error, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Answer(BaseModel):
    """A response or a part of one."""

    model_config = ConfigDict(frozen=True)


def _listed(value: Any) -> Any:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


MOST_ITEMS: Final = 100_000
"""Items in one list, whatever ``serve_max_items`` says: what is over it is not even made into objects."""
MOST_PARTS: Final = 1024
"""Parts, messages or values in one item."""
MOST_CHARACTERS: Final = 2**20
"""Of all texts of an item, 128 for every token that a model reads: more would be counted only to be cut off."""

Text: TypeAlias = Annotated[str, Field(min_length=1)]
Strings: TypeAlias = Annotated[
    list[Text],
    Field(max_length=MOST_PARTS, fail_fast=True),
    BeforeValidator(_listed, json_schema_input_type=Text | list[Text] | None),
]
"""One string or a list of strings; a list once it is read."""


class TextContent(Shape):
    """Words in a chat message."""

    type: Literal["text"]
    text: str


class Address(Shape):
    """Where a picture or video is: a ``data:`` URL, base64, or an http(s) address."""

    url: Text
    detail: str | None = None


class ImageContent(Shape):
    """A picture in a chat message."""

    type: Literal["image_url"]
    image_url: Address


class VideoContent(Shape):
    """A video in a chat message."""

    type: Literal["video_url"]
    video_url: Address


ContentPart: TypeAlias = Annotated[TextContent | ImageContent | VideoContent, Field(discriminator="type")]


def _content(value: Any) -> Any:
    """Plain words of a message as its only part; bare addresses as clients write them too."""
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if not isinstance(value, list):
        return value
    return [_addressed(part) for part in value]


def _addressed(part: Any) -> Any:
    if isinstance(part, dict):
        for key in ("image_url", "video_url"):
            if isinstance(part.get(key), str):
                return {**part, key: {"url": part[key]}}
    return part


Content: TypeAlias = Annotated[
    list[ContentPart],
    Field(max_length=MOST_PARTS, fail_fast=True),
    BeforeValidator(_content, json_schema_input_type=str | list[ContentPart]),
]
"""What a chat message says; a list of parts once it is read."""


class Contents(Shape):
    """An item as Cohere and vLLM write it."""

    content: Content


class PartObject(Shape):
    """An item as an object. Each of text, image and video is one value or a list.

    Attributes:
        text: words.
        image: ``data:`` URLs, base64 or addresses of pictures.
        video: the same of videos.
        instruction: what the vector is for, in English; None takes the request's, then the model's.
        fps: frames taken per second of a video.
        max_frames: most frames taken of a video.
    """

    text: Strings = []
    image: Strings = []
    video: Strings = []
    instruction: str | None = None
    fps: float | None = Field(default=None, gt=0, le=1000, allow_inf_nan=False)
    max_frames: int | None = Field(default=None, ge=2, le=4096)


class Part(PartObject):
    """An item in whichever way it was written; never empty."""

    @model_validator(mode="after")
    def _holds_something(self) -> Part:
        if not (self.text or self.image or self.video):
            raise PydanticCustomError("empty_item", "holds nothing: give text, an image or a video")
        if sum(map(len, self.text)) > MOST_CHARACTERS:
            raise PydanticCustomError("too_long", f"holds more than {MOST_CHARACTERS} characters")
        return self

    @property
    def num_media(self) -> int:
        """Pictures and videos, to be counted before any of them is decoded."""
        return len(self.image) + len(self.video)


def _fields(content: list[TextContent | ImageContent | VideoContent]) -> dict[str, list[str]]:
    """Parts of a chat message by kind, as keys of a ``Part``; empty words are dropped."""
    found: dict[str, list[str]] = {"text": [], "image": [], "video": []}
    for part in content:
        if isinstance(part, TextContent):
            if part.text:
                found["text"].append(part.text)
        elif isinstance(part, ImageContent):
            found["image"].append(part.image_url.url)
        else:
            found["video"].append(part.video_url.url)
    return found


def _part(value: Any) -> Any:
    """Any way to write an item, as the keys of a ``Part``."""
    if isinstance(value, str):
        return {"text": [value] if value else []}
    if isinstance(value, int) or (isinstance(value, list) and value and isinstance(value[0], int)):
        raise PydanticCustomError("token_ids", ONLY_TEXT)
    if isinstance(value, list):
        return _fields(Contents.model_validate({"content": value}).content)
    if isinstance(value, dict) and "content" in value:
        return _fields(Contents.model_validate(value).content)
    return value


ItemPart: TypeAlias = Annotated[
    Part,
    BeforeValidator(_part, json_schema_input_type=Text | PartObject | Contents | list[ContentPart]),
]
"""One item in any of the ways; a ``Part`` once it is read."""


Items: TypeAlias = Annotated[list[ItemPart], Field(min_length=1, max_length=MOST_ITEMS, fail_fast=True)]
"""A list of items."""


def _items(value: Any) -> Any:
    if isinstance(value, (str, dict)):
        return [value]
    if isinstance(value, list) and value and isinstance(value[0], int):
        raise PydanticCustomError("token_ids", ONLY_TEXT)
    return value


ItemParts: TypeAlias = Annotated[
    list[ItemPart],
    Field(min_length=1, max_length=MOST_ITEMS, fail_fast=True),
    BeforeValidator(_items, json_schema_input_type=Text | PartObject | Annotated[list[ItemPart], Field(min_length=1)]),
]
"""One item, or a list of items; a list once it is read. A list of chat content parts is an item only inside a list."""


class Message(Shape):
    """A chat message. ``name`` is taken and has no effect."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: str | None = None


def _spoken(value: Any) -> Any:
    """The messages of one conversation, as the keys of a ``Part``."""
    said: dict[str, list[str]] = {"text": [], "image": [], "video": []}
    told: list[str] = []
    for message in _MESSAGES.validate_python(value):
        found = _fields(message.content)
        if message.role == "user":
            for kind, values in found.items():
                said[kind] += values
        elif message.role == "assistant":
            if any(found.values()):
                raise PydanticCustomError("assistant", "only what the user says is embedded; leave the assistant empty")
        elif found["image"] or found["video"]:
            raise PydanticCustomError("system", "the system message is the instruction and holds words only")
        else:
            told += found["text"]
    return {**said, "instruction": "\n".join(told) or None}


_MESSAGES: Final = TypeAdapter(Annotated[list[Message], Field(min_length=1, max_length=MOST_PARTS, fail_fast=True)])

Conversation: TypeAlias = Annotated[
    Part,
    BeforeValidator(_spoken, json_schema_input_type=Annotated[list[Message], Field(min_length=1)]),
]
"""A conversation as one item: the user's content; the words of the system are the instruction.

The answer of the assistant is not embedded: it must be empty, as in the published example for vLLM.
"""


def _conversations(value: Any) -> Any:
    return [value] if isinstance(value, list) and value and isinstance(value[0], dict) else value


Conversations: TypeAlias = Annotated[
    list[Conversation],
    Field(min_length=1, max_length=MOST_ITEMS, fail_fast=True),
    BeforeValidator(
        _conversations,
        json_schema_input_type=Annotated[list[Message], Field(min_length=1)]
        | Annotated[list[Conversation], Field(min_length=1)],
    ),
]
"""One conversation, or a list of them; a list of items once it is read."""


class Usage(Answer):
    """Tokens of the texts in a request, without the prompt around them; pictures and videos are not counted."""

    prompt_tokens: int
    total_tokens: int


class ApiVersion(Answer):
    """Of Cohere's interface."""

    version: str


class BilledUnits(Answer):
    """What Cohere would count; nothing is billed."""

    input_tokens: int | None = None
    search_units: int | None = None


class Meta(Answer):
    """What Cohere's clients read beside the result."""

    api_version: ApiVersion
    billed_units: BilledUnits


class ErrorObject(Answer):
    """What went wrong.

    Attributes:
        message: for people.
        type: the kind, as OpenAI names them.
        param: the key of the request that is at fault, such as ``input.3``.
        code: for programs, such as ``not_media``.
    """

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Answer):
    """Every error of the server."""

    error: ErrorObject


def encoded(answer: Mapping[str, Any]) -> bytes:
    """An answer as JSON, made where it does not hold up other requests; large ones are not checked a second time."""
    return json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


MEANINGS: Final[dict[int, str]] = {
    400: "The request cannot be used; `param` says where",
    401: "A key is needed",
    403: "This page or site may not call the server",
    404: "There is no such thing, or no such model",
    405: "The path does not take this method",
    408: "The request did not arrive in time",
    409: "This cannot be done now",
    413: "Too large, or too much in one request",
    415: "Bodies are JSON, or a form for uploads",
    416: "The range cannot be served",
    421: "The server does not answer to that name",
    429: "Too many requests are waiting; `Retry-After` says when to try again",
    500: "A fault of the server",
    502: "The models run on another server, and that one fails",
    503: "The server is stopping, or its models start again",
    504: "The answer took too long",
}
ANYWHERE: Final = (400, 401, 403, 404, 405, 408, 413, 415, 421, 429, 500, 502, 503, 504)
"""What any route may answer."""


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route: what it may fail with, besides what any route may fail with."""
    return {
        status: {"model": ErrorAnswer, "description": MEANINGS[status]} for status in sorted({*ANYWHERE, *statuses})
    }
