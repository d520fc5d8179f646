"""A corpus like that of the built-in models, made in a moment, and a geometry that learns it in seconds."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from sightline.model.config import ModelConfig
from sightline.model.vl import QwenVL
from sightline.train.builtin import geometry, layout, tokenizer

FIELDS = ("src", "task", "lang", "q_text", "q_image", "d_text", "d_image", "neg_image")
NOUNS = [
    "river",
    "house",
    "garden",
    "table",
    "window",
    "street",
    "letter",
    "engine",
    "bottle",
    "flower",
    "mountain",
    "ticket",
    "bridge",
    "camera",
]
VERBS = ["opens", "crosses", "paints", "sells", "watches", "repairs", "follows", "carries"]
COLOURS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 70, 220), "yellow": (240, 210, 40)}
VOCAB_SIZE = 1024

real_config = geometry.config_json


def foreign(text: str) -> str:
    """The language of the toy corpus: English words backwards."""
    return " ".join(word[::-1] for word in text.lower().strip(".").split())


def make_corpus(folder: Path, num: int = 60) -> Path:
    """``pairs.parquet`` and ``images.parquet`` with every source, ``num`` rows each."""
    rng = random.Random(0)
    rows: list[dict[str, Any]] = []
    images: dict[str, bytes] = {}

    def add(src: str, task: str, lang: str = "en", **values: str) -> None:
        rows.append(dict.fromkeys(FIELDS) | {"src": src, "task": task, "lang": lang} | values)

    def image(name: str, color: str) -> str:
        buffer = io.BytesIO()
        light = tuple(min(255, max(0, part + rng.randint(-20, 20))) for part in COLOURS[color])
        Image.new("RGB", (48, 48), light).save(buffer, "webp", lossless=True)
        images[name] = buffer.getvalue()
        return name

    for i in range(num):
        noun, other, verb, color = rng.choice(NOUNS), rng.choice(NOUNS), rng.choice(VERBS), list(COLOURS)[i % 4]
        sentence = f"The {color} {noun} {verb} the old {other} number {i}."
        add("tatoeba", "t2t", "xx", q_text=foreign(sentence), d_text=sentence)
        add("wordnet", "t2t", q_text=f"{noun}, {color} {noun}", d_text=f"something {color} that {verb} the {other} {i}")
        add("wordnet-ex", "t2t", q_text=f"the {noun} {verb} {i} words", d_text=f"{noun}: sense {i}")
        add("banking77", "t2t", q_text=f"where is my {noun} number {i}?", d_text=f"lost {NOUNS[i % 5]}")
        add("code", "t2t", q_text=f"returns {i}", d_text=f"def f():\n    return {i}")
        picture = image(f"img/{0x1F400 + i:x}.webp", color)
        for lang, word in (("en", f"{color} {noun} {i}"), ("xx", foreign(f"{color} {noun}") + f" {i}")):
            add("emoji-name", "i2t", lang, q_image=picture, d_text=word)
            add("emoji-keywords", "i2t", lang, q_image=picture, d_text=f"{word}, {other}")
        add("emoji-xling", "t2t", "xx", q_text=foreign(f"{color} {noun}") + f" {i}", d_text=f"{color} {noun} {i}")
        add("lucide", "i2t", q_image=image(f"lucide/{i}.webp", color), d_text=f"{noun}: {color}, {other}")
        add("vega", "i2t", q_image=image(f"vega/{i}.webp", color), d_text=f"{color} bars of {noun}, {i}")
        garment = ("dress", "hat", "shirt", "longsleeve")[i % 4]
        add("clothing", "i2t", q_image=image(f"clothing/{i}.webp", color), d_text=garment)
        food = ("Gala (Apple)", "Kiwi (Kiwi)", "Lime (Citrus)", "Bought fresh.")[i % 4]
        add("grocery", "i2t", q_image=image(f"grocery/{i}.webp", color), d_text=food)
        tones = [image(f"img/{0x1F600 + i:x}_{tone}.webp", color) for tone in ("1f3fb", "1f3ff")]
        add("emoji-tone", "it2i", q_text="the same, darker", q_image=tones[0], d_image=tones[1])
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    pq.write_table(pa.table({"id": list(images), "webp": list(images.values())}), folder / "images.parquet")
    return folder


def tiny_config(added: dict[str, int], vocab_size: int = VOCAB_SIZE) -> dict[str, Any]:
    """``config.json`` of a model of 300,000 parameters with all that the built-in models have."""
    config = real_config(added, vocab_size)
    config["text_config"] |= {
        "hidden_size": 96,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
    }
    config["vision_config"] |= {
        "deepstack_visual_indexes": [0],
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "out_hidden_size": 96,
    }
    return config


def use_tiny_geometry(patch: Any) -> None:
    """Until ``patch`` is undone, new built-in models are tiny."""
    patch.setattr(geometry, "config_json", tiny_config)
    patch.setattr(geometry, "VOCAB_SIZE", VOCAB_SIZE)
    patch.setattr(tokenizer, "PROMPT_REPEATS", 1000)


def tiny_model(added: dict[str, int], seed: int = 0) -> QwenVL:
    """A network before its training."""
    model = QwenVL(ModelConfig.from_dict(tiny_config(added)))
    layout.initialise(model, seed)
    return model


class Here:
    """Takes the place of ``Ahead``: batches made in this process, for starting another costs seconds."""

    def __init__(self, source: Any, *, first: int = 0, workers: int = 1) -> None:
        self._make, self._step = source(), first

    def next(self) -> Any:
        self._step += 1
        return self._make(self._step - 1)

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def descend(loss_of: Any, parameters: Any, steps: int, rate: float) -> list[float]:
    """Losses of some steps of Adam."""
    adam, losses = torch.optim.Adam(list(parameters), lr=rate), []
    for _ in range(steps):
        loss = loss_of()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return losses
