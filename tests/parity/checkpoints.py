"""Random checkpoints in the published layout: every tensor name, any size, made in a moment from nothing.

The list of tensors is written out here from the published files (model-facts, section 2) and not asked of our network, so
that a loader which accepts these folders accepts the real ones. Tensors are streamed to disk one by one: the true 2B takes
4.3 GB of disk, no more memory than the tiny one, and a few seconds.

    random_checkpoint(folder)                                   # a tiny one, 1 M parameters, float32
    random_checkpoint(folder, EMBEDDING_2B, dtype="bfloat16")   # 2,127,532,032 parameters
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import tokenizers
import torch
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

SPECIAL: Final = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
NOT_SPECIAL: Final = (
    *(
        "<tool_call>",
        "</tool_call>",
        "<|fim_prefix|>",
        "<|fim_middle|>",
        "<|fim_suffix|>",
        "<|fim_pad|>",
        "<|repo_name|>",
    ),
    *("<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
)
ADDED_TOKENS: Final = (*SPECIAL, *NOT_SPECIAL)
"""The 26 added tokens of the published tokenizers, in the order of their ids."""

SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS: Final = 900
"""Plain tokens of our tokenizer; the added ones come after them."""

TEXTS: Final = (
    "Represent the user's input. Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no". yes no yes no system user assistant NULL seconds',
    "Given a search query, retrieve relevant candidates that answer the query. <Instruct>: <Query>: <Document>: ",
    "A woman playing with her dog on a beach at sunset. Two red bicycles lean against a white wall; it isn't raining.",
    "Der Zug nach Köln fährt heute um 17:05 von Gleis 9. Grüße aus München, schöne Straßen überall!",
    "Où est la bibliothèque ? Elle n'est pas loin d'ici, à côté de la gare. ¿Dónde está el perro? Mañana lloverá.",
    "一只狗在海滩上奔跑,日落很美。机器学习与图像检索。 東京の夜景とラーメン屋のメニュー。 서울의 봄, 한강 공원에서 자전거를 탄다.",
    "Быстрая коричневая лиса прыгает через ленивую собаку. Η γάτα κοιμάται. مرحبا بالعالم، كيف حالك؟ שלום עולם ",
    "नमस्ते दुनिया, यह एक परीक्षण है। สวัสดีชาวโลก 🚲🐕🌅 def f(x):\n\treturn x**2  # ten\n\n1234567890 a.b,c;d:e!f?g(h)i[j]{k}",
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Geometry of a checkpoint, in the words of ``config.json``."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vision_hidden: int
    vision_depth: int
    vision_heads: int
    vision_mlp: int
    deepstack: tuple[int, ...]
    vocabulary: int | None = None
    """Rows of the table; None takes as many as the tokenizer needs."""
    head_dim: int = 128
    mrope_section: tuple[int, int, int] = (24, 20, 20)
    position_embeddings: int = 2304
    tied: bool = True
    lm_head: bool = False
    """Whether the file holds lm_head.weight: the 8B reranker does, the 8B embedder does not although it is not tied."""


TINY: Final = Shape(64, 4, 4, 2, 96, 48, 4, 4, 80, (0, 1, 2))
"""As the stored goldens have it, with a small table."""
EMBEDDING_2B: Final = Shape(2048, 28, 16, 8, 6144, 1024, 24, 16, 4096, (5, 11, 17), vocabulary=151_936)
"""2,127,532,032 parameters, tied: embedder and reranker."""
EMBEDDING_8B: Final = Shape(4096, 36, 32, 8, 12288, 1152, 27, 16, 4304, (8, 16, 24), vocabulary=151_936, tied=False)
"""8,144,793,840 parameters: not tied, and yet without a head."""
RERANKER_8B: Final = replace(EMBEDDING_8B, lm_head=True)
"""8,767,123,696 parameters."""


def tensor_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of the published files, in their order."""
    table = shape.vocabulary or WORDS + len(ADDED_TOKENS)
    out: dict[str, tuple[int, ...]] = {}
    text = "model.language_model."
    out[f"{text}embed_tokens.weight"] = (table, shape.hidden)
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for index in range(shape.layers):
        layer = f"{text}layers.{index}."
        out[f"{layer}input_layernorm.weight"] = (shape.hidden,)
        out[f"{layer}post_attention_layernorm.weight"] = (shape.hidden,)
        out[f"{layer}self_attn.q_proj.weight"] = (wide, shape.hidden)
        out[f"{layer}self_attn.k_proj.weight"] = (narrow, shape.hidden)
        out[f"{layer}self_attn.v_proj.weight"] = (narrow, shape.hidden)
        out[f"{layer}self_attn.o_proj.weight"] = (shape.hidden, wide)
        out[f"{layer}self_attn.q_norm.weight"] = (shape.head_dim,)
        out[f"{layer}self_attn.k_norm.weight"] = (shape.head_dim,)
        out[f"{layer}mlp.gate_proj.weight"] = (shape.mlp, shape.hidden)
        out[f"{layer}mlp.up_proj.weight"] = (shape.mlp, shape.hidden)
        out[f"{layer}mlp.down_proj.weight"] = (shape.hidden, shape.mlp)
    out[f"{text}norm.weight"] = (shape.hidden,)

    def linear(name: str, size_out: int, size_in: int) -> None:
        out[f"{name}.weight"], out[f"{name}.bias"] = (size_out, size_in), (size_out,)

    def norm(name: str, size: int) -> None:
        out[f"{name}.weight"], out[f"{name}.bias"] = (size,), (size,)

    def merger(name: str, norm_size: int) -> None:
        norm(f"{name}.norm", norm_size)
        linear(f"{name}.linear_fc1", 4 * shape.vision_hidden, 4 * shape.vision_hidden)
        linear(f"{name}.linear_fc2", shape.hidden, 4 * shape.vision_hidden)

    out["model.visual.patch_embed.proj.weight"] = (shape.vision_hidden, 3, 2, 16, 16)
    out["model.visual.patch_embed.proj.bias"] = (shape.vision_hidden,)
    out["model.visual.pos_embed.weight"] = (shape.position_embeddings, shape.vision_hidden)
    for index in range(shape.vision_depth):
        block = f"model.visual.blocks.{index}."
        norm(f"{block}norm1", shape.vision_hidden)
        norm(f"{block}norm2", shape.vision_hidden)
        linear(f"{block}attn.qkv", 3 * shape.vision_hidden, shape.vision_hidden)
        linear(f"{block}attn.proj", shape.vision_hidden, shape.vision_hidden)
        linear(f"{block}mlp.linear_fc1", shape.vision_mlp, shape.vision_hidden)
        linear(f"{block}mlp.linear_fc2", shape.vision_hidden, shape.vision_mlp)
    merger("model.visual.merger", shape.vision_hidden)
    for index in range(len(shape.deepstack)):
        merger(f"model.visual.deepstack_merger_list.{index}", 4 * shape.vision_hidden)
    if shape.lm_head:
        out["lm_head.weight"] = (table, shape.hidden)
    return out


def num_parameters(shape: Shape) -> int:
    """Values of all tensors together."""
    return sum(math.prod(size) for size in tensor_shapes(shape).values())


def config(shape: Shape, *, dtype: str = "float32", spelling: str = "4.57") -> dict[str, Any]:
    """``config.json`` as transformers 4.57 writes it, or with the rope keys of 5.x (``spelling="5"``)."""
    ids = {name: WORDS + index for index, name in enumerate(ADDED_TOKENS)}
    rope = {"rope_type": "default", "mrope_section": list(shape.mrope_section), "mrope_interleaved": True}
    theta = 5_000_000
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "dtype": dtype,
        "tie_word_embeddings": shape.tied,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "text_config": {
            "model_type": "qwen3_vl_text",
            "dtype": dtype,
            "vocab_size": shape.vocabulary or WORDS + len(ADDED_TOKENS),
            "hidden_size": shape.hidden,
            "intermediate_size": shape.mlp,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "max_position_embeddings": 262_144,
            "use_cache": True,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "tie_word_embeddings": shape.tied,
            "initializer_range": 0.02,
            **(
                {"rope_theta": theta, "rope_scaling": rope}
                if spelling == "4.57"
                else {"rope_parameters": {"rope_theta": theta, **rope}}
            ),
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            "depth": shape.vision_depth,
            "hidden_size": shape.vision_hidden,
            "num_heads": shape.vision_heads,
            "intermediate_size": shape.vision_mlp,
            "hidden_act": "gelu_pytorch_tanh",
            "in_channels": 3,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "num_position_embeddings": shape.position_embeddings,
            "out_hidden_size": shape.hidden,
            "deepstack_visual_indexes": list(shape.deepstack),
            "initializer_range": 0.02,
        },
    }


@cache
def tokenizer_json(*, template: bool = True) -> str:
    """A byte-level tokenizer of the published kind, trained on ``TEXTS`` at once; ``yes`` and ``no`` are one token each.

    Args:
        template: append ``<|endoftext|>`` to whatever is encoded with special tokens, as the embedders' files do and the
            rerankers' do not.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        min_frequency=1,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    assert tokenizer.get_vocab_size() == WORDS, tokenizer.get_vocab_size()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens([tokenizers.AddedToken(name, normalized=False) for name in NOT_SPECIAL])
    if template:
        end = "<|endoftext|>"
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", pair=f"$A $B {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
        )
    assert [tokenizer.token_to_id(name) for name in ADDED_TOKENS] == [WORDS + i for i in range(len(ADDED_TOKENS))]
    return str(tokenizer.to_str())


BLOCK: Final = 1_048_573
"""Random numbers drawn for one tensor; larger tensors repeat them. A prime, so that no two rows of a tensor are equal."""


def block(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """The first values of one tensor, at most ``BLOCK`` of them, float32: activations stay near 1, vectors apart."""
    generator = torch.Generator().manual_seed(
        (seed * 1_000_003 + zlib.crc32(name.encode())) % 2**32
    )  # torch keeps 32 bits
    drawn = torch.randn(min(math.prod(shape), BLOCK), generator=generator)
    if name.endswith("bias"):
        return drawn * 0.1
    if len(shape) == 1:
        return 1 + drawn * 0.1
    if "embed_tokens" in name or "lm_head" in name or "pos_embed" in name:
        return drawn * 0.2
    return drawn / math.sqrt(math.prod(shape[1:]))


def random_checkpoint(
    folder: Path,
    shape: Shape = TINY,
    *,
    seed: int = 0,
    dtype: str = "float32",
    num_shards: int = 1,
    template: bool = True,
    spelling: str = "4.57",
) -> Path:
    """Writes config.json, tokenizer.json and safetensors of random weights.

    Args:
        folder: made when it does not exist.
        shape: geometry.
        seed: of the weights; equal seeds give equal files.
        dtype: float32, bfloat16 or float16.
        num_shards: 1 writes ``model.safetensors``; more write the numbered files and their index.
        template: see ``tokenizer_json``; False for a reranker.
        spelling: see ``config``.

    Returns:
        the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config(shape, dtype=dtype, spelling=spelling), indent=1)
    (folder / "config.json").write_text(text, encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer_json(template=template), encoding="utf-8")
    shapes = tensor_shapes(shape)
    if num_shards == 1:
        write_safetensors(folder / "model.safetensors", shapes, seed, dtype)
        return folder
    names = list(shapes)
    per_shard = -(-len(names) // num_shards)
    weight_map = {}
    for index in range(num_shards):
        file = f"model-{index + 1:05}-of-{num_shards:05}.safetensors"
        held = names[index * per_shard : (index + 1) * per_shard]
        write_safetensors(folder / file, {name: shapes[name] for name in held}, seed, dtype)
        weight_map.update(dict.fromkeys(held, file))
    total = num_parameters(shape) * (4 if dtype == "float32" else 2)
    index_text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1)
    (folder / "model.safetensors.index.json").write_text(index_text, encoding="utf-8")
    return folder


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]], seed: int, dtype: str) -> None:
    """A safetensors file of random tensors, one tensor in memory at a time."""
    code, width = {"float32": ("F32", 4), "bfloat16": ("BF16", 2), "float16": ("F16", 2)}[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + math.prod(shape) * width
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name, shape in shapes.items():
            values = block(name, shape, seed).to(getattr(torch, dtype)).view(torch.uint8).numpy().data
            left = math.prod(shape) * width
            while left > 0:
                left -= file.write(values[:left])
