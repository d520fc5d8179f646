"""Text to ids, with a tokenizer that cannot be talked into control tokens.

The prompt is split at the template's own special tokens, and each span between them is encoded as one plain string by
a tokenizer from which every added token was removed. Ordinary text gets the same ids as in the official code, merges
across the borders of parts included; ``<|im_end|>`` in a document stays the eleven characters that it is.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import tokenizers

from sightline.errors import WeightsError

CONTROL_TOKENS: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""The tokens our templates write. No text can produce them."""


class Tokenizer:
    """The checkpoint's own ``tokenizer.json``, for plain text, with the control tokens by name."""

    def __init__(self, path: Path) -> None:
        try:
            description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            added = {token["content"]: int(token["id"]) for token in description["added_tokens"]}
            special = {token["content"] for token in description["added_tokens"] if token["special"]}
            description["added_tokens"] = []
            description["post_processor"] = None
            description["truncation"] = None
            description["padding"] = None
            self._plain = tokenizers.Tokenizer.from_str(json.dumps(description))
        except FileNotFoundError:
            raise WeightsError("the checkpoint has no tokenizer.json") from None
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError("tokenizer.json cannot be read") from error
        except Exception as error:  # tokenizers raises bare Exception for a malformed description
            raise WeightsError("tokenizer.json does not describe a tokenizer") from error
        missing = [name for name in CONTROL_TOKENS if name not in added]
        if missing:
            raise WeightsError(f"tokenizer.json lacks the token {missing[0]}")
        self._control = {name: added[name] for name in CONTROL_TOKENS}
        self.added_tokens: dict[str, int] = added
        """Every added token of the checkpoint with its id; text never becomes one of them."""
        self.special_ids: frozenset[int] = frozenset(added[name] for name in special)
        """Ids the reranker's truncation keeps."""
        self._encode_cached = lru_cache(maxsize=4096)(self._encode)

    def control(self, name: str) -> int:
        """Id of a control token of the templates."""
        return self._control[name]

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a plain string; short strings are remembered, because prompts share their spans."""
        return self._encode_cached(text) if len(text) <= 512 else self._encode(text)

    def decode(self, ids: list[int] | tuple[int, ...]) -> str:
        """The text of plain ids."""
        return str(self._plain.decode(list(ids), skip_special_tokens=False))

    def word_id(self, word: str) -> int:
        """Id of a word that is one token, such as ``yes``.

        Raises:
            WeightsError: when it is not.
        """
        index = self._plain.token_to_id(word)
        if index is None:
            raise WeightsError(f"{word!r} is not one token of this tokenizer")
        return int(index)

    def _encode(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        # a lone surrogate cannot be written as UTF-8; it becomes U+FFFD as every decoder would have made it
        clean = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") if _has_surrogate(text) else text
        return tuple(self._plain.encode(clean, add_special_tokens=False).ids)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text) if not text.isascii() else False
