"""A small byte-level BPE tokenizer with the normaliser, split and added tokens of Qwen3.

The pipeline is the published one (NFC, Qwen's split expression, ByteLevel); only the merges are learned here. All 26
added tokens of Qwen are appended by name, so that every tool that looks one up finds it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from sightline.prep.prompt import EMBED_INSTRUCTION, RERANK_INSTRUCTION, RERANK_SYSTEM

SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen cuts text before merging (tokenizer.json of Qwen3-VL-Embedding-8B)."""

SPECIAL: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
ORDINARY: Final = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
ADDED: Final = SPECIAL + ORDINARY
"""The 26 added tokens of Qwen3, in the order of their ids; the first 14 are special."""

PROMPT_REPEATS: Final = 20_000
"""Times the prompts' own words are shown to the BPE trainer: every prompt holds them, so each should be one token."""


def _prompt_words() -> Iterator[str]:
    for _ in range(PROMPT_REPEATS):
        yield "system\n" + EMBED_INSTRUCTION
        yield "user\nassistant\n"
        yield "system\n" + RERANK_SYSTEM
        yield f"<Instruct>: {RERANK_INSTRUCTION}<Query>:"
        yield "\n<Document>:"
        yield "yes\nno\n"
        yield "<0.2 seconds>"


def learn(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Learns the merges.

    Args:
        texts: what the model will read.
        vocab_size: ids in all, added tokens included.

    Returns:
        the reranker's tokenizer: it appends nothing.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()

    def everything() -> Iterator[str]:
        yield from texts
        yield from _prompt_words()

    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(ADDED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(everything(), trainer)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    for name in ADDED:
        token = AddedToken(name, normalized=False, special=name in SPECIAL)
        if name in SPECIAL:
            tokenizer.add_special_tokens([token])
        else:
            tokenizer.add_tokens([token])
    return tokenizer


def write(tokenizer: tokenizers.Tokenizer, folder: Path, *, append_end: bool) -> None:
    """Writes ``tokenizer.json`` and ``tokenizer_config.json``.

    Args:
        tokenizer: from ``learn``.
        folder: of the checkpoint.
        append_end: add the post-processor that appends ``<|endoftext|>`` (the embedder's files have it).
    """
    description: dict[str, Any] = json.loads(tokenizer.to_str())
    end = tokenizer.token_to_id("<|endoftext|>")
    if append_end:
        token = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
        description["post_processor"] = {
            "type": "Sequence",
            "processors": [
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
                {
                    "type": "TemplateProcessing",
                    "single": [{"Sequence": {"id": "A", "type_id": 0}}, token],
                    "pair": [
                        {"Sequence": {"id": "A", "type_id": 0}},
                        {"Sequence": {"id": "B", "type_id": 0}},
                        token,
                    ],
                    "special_tokens": {
                        "<|endoftext|>": {"id": "<|endoftext|>", "ids": [end], "tokens": ["<|endoftext|>"]}
                    },
                },
            ],
        }
    compact = json.dumps(description, ensure_ascii=False, separators=(",", ":"))
    tokenizers.Tokenizer.from_str(compact)  # what is written can be read
    (folder / "tokenizer.json").write_text(compact, encoding="utf-8")
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(name)): {
                "content": name,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": name in SPECIAL,
            }
            for name in ADDED
        },
        "additional_special_tokens": list(SPECIAL[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 262144,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")
