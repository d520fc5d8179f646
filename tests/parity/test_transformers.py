"""A second oracle: transformers 5.17 on a random checkpoint of our own.

Its processors need torchvision, so it is given our patches; ids come from its tokenizer on a chat string written out here,
positions from its ``get_rope_index``, and everything after that is its own network.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from sightline.embed import Embedder
from sightline.engine.runner import Engine
from sightline.media.reader import Reader
from sightline.model.weights import Checkpoint
from sightline.prep.patches import full_patches
from sightline.prep.prepare import Budgets, Prepared, Preparer
from sightline.prep.prompt import VideoLayout, Visual
from sightline.prep.tokens import Tokenizer
from sightline.rerank import Reranker
from sightline.types import Item
from tests.parity.conftest import picture

DEFAULT = "Represent the user's input."

TEXTS = {
    "english": "A woman playing with her dog on a beach at sunset.",
    "german": "Grüße aus Köln: die Straße ist naß, der Zug fährt um 17:05.",
    "french": "Où est la bibliothèque ? Elle n'est pas loin d'ici.",
    "spanish": "¿Dónde está el perro? ¡Mañana lloverá!",
    "chinese": "一只狗在海滩上奔跑,日落很美。",
    "japanese": "東京の夜景とラーメン屋のメニュー",
    "korean": "서울의 봄, 한강 공원에서 자전거를 탄다",
    "russian": "Быстрая коричневая лиса прыгает через ленивую собаку",
    "greek": "Η γάτα κοιμάται πάνω στο χαλί.",
    "arabic": "مرحبا بالعالم، كيف حالك اليوم؟",
    "hebrew": "שלום עולם, מה שלומך?",
    "hindi": "नमस्ते दुनिया, यह एक परीक्षण है।",
    "thai": "สวัสดีชาวโลก แมวนอนอยู่",
    "emoji": "👩🏽‍🚀 rides a 🚲 past 🌅🌅🌅",
    "code": "def f(x):\n\treturn x ** 2  # ten\r\n\r\n\n",
    "not_nfc": "Cafe\u0301 A\u030a \ufb01n \u1e9b\u0323",
    "spaces": "  two  spaces \u00a0 and\ttabs \n\n\nlines   ",
    "newline_first": "\n\nstarts with lines",
    "empty_string": "",
    "digits": "3.14159 2026-11-21 ١٢٣ Ⅷ ½",
    "long": "a slow green turtle. " * 300,
}
INSTRUCTIONS = {
    "period": "Find the page.",
    "no_period": "Find the page",
    "question": "Which one is it?",
    "chinese_stop": "找到图片。",
    "spaces": "  Retrieve images  ",
    "bracket": "Find it (now)",
    "symbol": "Add +",
    "letter": "ß",
}
SIZES = [
    *(
        (1, 1),
        (16, 1000),
        (1000, 16),
        (4000, 50),
        (97, 41),
        (31, 33),
        (48, 48),
        (80, 80),
        (640, 480),
        (5, 900),
        (333, 500),
    ),
    *((1300, 900), (64, 2000)),
]
"""(width, height) of single pictures."""


def clip(path: Path, width: int, height: int, count: int, rate: int | Fraction) -> str:
    """A small video file of ``count`` pictures."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(count):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture(width, height, index), format="rgb24")))
        file.mux(stream.encode())
    return str(path)


CLIPS: dict[str, tuple[int, int, int, int | Fraction]] = {
    "one_second": (64, 48, 10, 10),
    "ten_seconds": (160, 120, 100, 10),
    "short": (96, 96, 7, 25),
    "ntsc": (128, 72, 45, Fraction(30000, 1001)),
    "tall": (48, 144, 30, 15),
}
"""(width, height, pictures, pictures per second) of the video files."""


def frames(count: int, width: int = 160, height: int = 120) -> list[np.ndarray]:
    return [picture(width, height, seed) for seed in range(count)]


def items(clips: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Every item that is compared, by name."""
    grey = Image.fromarray(picture(90, 70, 3)).convert("L")
    half_clear = Image.fromarray(picture(90, 70, 4)).convert("RGBA")
    half_clear.putalpha(120)
    made: dict[str, dict[str, Any]] = {f"text {name}": {"text": text} for name, text in TEXTS.items()}
    made |= {f"instruction {name}": {"text": "Paris", "instruction": text} for name, text in INSTRUCTIONS.items()}
    made |= {f"image {w}x{h}": {"image": picture(w, h, w % 7)} for w, h in SIZES}
    made |= {f"file {name}": {"video": path} for name, path in clips.items()}
    made |= {
        "empty": {},
        "texts": {"text": ["one ", "two", " three"]},
        "image grey": {"image": grey},
        "image alpha": {"image": half_clear},
        "image palette": {"image": Image.fromarray(picture(90, 70, 5)).convert("P")},
        "images two": {"image": [picture(64, 64, 1), picture(200, 120, 2)]},
        "images same": {"image": [picture(64, 64, 1)] * 3},
        "images seven": {"image": [picture(40 + 9 * i, 90 - 8 * i, i) for i in range(7)]},
        "image and text": {"text": "hello", "image": picture(97, 41, 0)},
        "image and instruction": {"image": picture(97, 41, 0), "instruction": "What is it"},
        "images and texts": {"text": ["a", "b"], "image": [picture(50, 60, 1), picture(60, 50, 2)]},
        "frames two": {"video": frames(2)},
        "frames odd": {"video": frames(5)},
        "frames one": {"video": frames(1)},
        "frames tall": {"video": frames(4, 60, 200)},
        "frames many": {"video": frames(9, 64, 64), "max_frames": 6},
        "file at 2 fps": {"video": clips["ten_seconds"], "fps": 2.0, "max_frames": 12},
        "file few frames": {"video": clips["ten_seconds"], "max_frames": 4},
        "file and text": {"text": "the ball", "video": clips["short"]},
        "videos two": {"video": [clips["short"], clips["tall"]]},
        "mixed": {"text": "mixed", "image": picture(70, 100, 9), "video": frames(4)},
        "mixed file": {
            "text": ["all of", " them"],
            "image": [picture(70, 100, 9), picture(33, 31, 1)],
            "video": clips["tall"],
            "instruction": "Find the clip",
        },
    }
    return made


NAMES = sorted(items(dict.fromkeys(CLIPS, "")))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("clips")
    return {name: clip(folder / f"{name}.mp4", *values) for name, values in CLIPS.items()}


@pytest.fixture(scope="module")
def given(clips: dict[str, str]) -> dict[str, dict[str, Any]]:
    return items(clips)


class Oracle:
    """transformers' tokenizer and network."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self.network = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    def ids(self, text: str, max_length: int = 8192) -> list[int]:
        encoded = self.tokenizer(text, truncation=True, max_length=max_length, add_special_tokens=True)
        return list(encoded["input_ids"])

    def inputs(self, prompt: Prepared) -> dict[str, Tensor]:
        """Our ids and patches as the keyword arguments of its ``forward``."""
        config = self.network.config
        ids = torch.from_numpy(prompt.ids)[None]
        types = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()
        out = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": types}
        for is_video, pixels, grid in (
            (False, "pixel_values", "image_grid_thw"),
            (True, "pixel_values_videos", "video_grid_thw"),
        ):
            visuals = [visual for visual in prompt.visuals if visual.is_video == is_video]
            if visuals:
                out[pixels] = torch.from_numpy(np.concatenate([full_patches(v.patches) for v in visuals]))
                out[grid] = torch.tensor([visual.grid for visual in visuals])
        return out

    def positions(self, prompt: Prepared) -> Tensor:
        given = {name: value for name, value in self.inputs(prompt).items() if "pixel" not in name}
        found, _ = self.network.model.get_rope_index(**given)
        return torch.as_tensor(found[:, 0])

    @torch.no_grad()
    def hidden(self, prompt: Prepared) -> Tensor:
        """Last hidden state of the last token, (C,)."""
        out = self.network.model(**self.inputs(prompt), use_cache=False)
        return torch.as_tensor(out.last_hidden_state[0, -1])

    @torch.no_grad()
    def logits(self, prompt: Prepared) -> Tensor:
        """Logits at the last token, (vocabulary,)."""
        return torch.as_tensor(self.network(**self.inputs(prompt), use_cache=False).logits[0, -1])


@pytest.fixture(scope="module")
def oracle(checkpoint: Path) -> Oracle:
    return Oracle(checkpoint)


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Engine:
    return Engine(Checkpoint(checkpoint).build(torch.device("cpu"), torch.float32))


@pytest.fixture(scope="module")
def reference(given: dict[str, dict[str, Any]], checkpoint: Path, oracle: Oracle) -> dict[str, tuple[Prepared, Tensor]]:
    """Prompt and unit vector of the oracle for every item, by name."""
    preparer = Preparer(Tokenizer(checkpoint / "tokenizer.json"), Reader(), Budgets())
    prompts = {name: preparer.embedding(Item(**value)) for name, value in given.items()}
    return {name: (p, torch.nn.functional.normalize(oracle.hidden(p), dim=0)) for name, p in prompts.items()}


def timestamps(name: str, item: dict[str, Any]) -> list[list[float]]:
    """Seconds of the temporal patches of each video of an item, from the official arithmetic written out again."""
    if "video" not in item:
        return []
    out = []
    sources = (
        [item["video"]] if isinstance(item["video"], str) or not isinstance(item["video"][0], str) else item["video"]
    )
    for source in sources:
        if isinstance(source, str):
            _, _, total, rate = CLIPS[Path(source).stem]
            wanted = max(total / float(rate) * item.get("fps", 1.0), 4)
            count = int(min(wanted, item.get("max_frames", 64) // 2 * 2, total) // 2 * 2)
            seconds = np.linspace(0, total - 1, count).round() / float(rate)
        else:
            count = min(len(source), item.get("max_frames", 64))
            seconds = np.arange(count + count % 2) / 2.0
        out.append(((seconds[::2] + seconds[1::2]) / 2).tolist())
    return out


def shown(visuals: tuple[Visual, ...], seconds: list[list[float]], layout: VideoLayout) -> str:
    """The visual part of a prompt as a chat string, pads written out."""
    text, clip_seconds = "", iter(seconds)
    for visual in visuals:
        times, rows, columns = visual.grid
        count = rows * columns // 4
        if not visual.is_video:
            text += "<|vision_start|>" + "<|image_pad|>" * count + "<|vision_end|>"
            continue
        stamps = next(clip_seconds)
        assert len(stamps) == times
        groups = "".join(f"<{s:.1f} seconds><|vision_start|>{'<|video_pad|>' * count}<|vision_end|>" for s in stamps)
        text += groups if layout == "4.57" else f"<|vision_start|>{groups}<|vision_end|>"
    return text


def chat(name: str, item: dict[str, Any], prompt: Prepared, layout: VideoLayout) -> str:
    """The whole prompt of an item as the official template has it."""
    system = item.get("instruction", DEFAULT).strip()
    system += "" if system[-1] in ".?。)" else "."
    text = item.get("text", "")
    text = text if isinstance(text, str) else "".join(text)
    body = shown(prompt.visuals, timestamps(name, item), layout) + text
    if "text" not in item and not prompt.visuals:
        body = "NULL"
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{body}<|im_end|>\n<|im_start|>assistant\n"


def test_there_are_enough_items() -> None:
    assert len(NAMES) >= 60


@pytest.mark.parametrize("name", NAMES)
def test_ids(name: str, given: dict[str, Any], reference: dict[str, Any], oracle: Oracle) -> None:
    prompt, _ = reference[name]
    assert prompt.ids.tolist() == oracle.ids(chat(name, given[name], prompt, "4.57"))


@pytest.mark.parametrize("name", NAMES)
def test_positions(name: str, reference: dict[str, Any], oracle: Oracle) -> None:
    prompt, _ = reference[name]
    assert np.array_equal(prompt.positions, oracle.positions(prompt).numpy())


@pytest.mark.parametrize("name", NAMES)
def test_vector(name: str, reference: dict[str, Any], engine: Engine) -> None:
    prompt, wanted = reference[name]
    state = engine.states([prompt])[0]
    assert isinstance(state, np.ndarray)
    assert np.abs(state / np.linalg.norm(state) - wanted.numpy()).max() <= 1e-5


def test_vectors_of_all_at_once(reference: dict[str, Any], given: dict[str, Any], checkpoint: Path) -> None:
    """Every item through the public door in one call."""
    vectors = Embedder.load(str(checkpoint), dtype="float32").embed([Item(**given[name]) for name in NAMES])
    wanted = torch.stack([reference[name][1] for name in NAMES]).numpy()
    assert np.abs(vectors - wanted).max() <= 1e-5


def test_vectors_are_apart(reference: dict[str, Any]) -> None:
    """Different items have different vectors here, so that equality above means something."""
    wanted = torch.stack([reference[name][1] for name in NAMES])
    near = (wanted @ wanted.T).fill_diagonal_(0).gt(0.99999).nonzero().tolist()
    assert {frozenset((NAMES[a], NAMES[b])) for a, b in near} <= SAME


SAME = {frozenset(("instruction no_period", "instruction period"))}
"""Items whose prompts are equal."""


VIDEOS = [name for name in NAMES if name.startswith(("file", "frames", "mixed", "videos"))]


@pytest.mark.parametrize("name", VIDEOS)
def test_video_layout_of_transformers_5(
    name: str, given: dict[str, Any], oracle: Oracle, engine: Engine, checkpoint: Path, reference: dict[str, Any]
) -> None:
    preparer = Preparer(Tokenizer(checkpoint / "tokenizer.json"), Reader(), Budgets(), layout="5")
    prompt = preparer.embedding(Item(**given[name]))
    assert prompt.ids.tolist() == oracle.ids(chat(name, given[name], prompt, "5"))
    assert len(prompt) == len(reference[name][0]) + 2 * sum(visual.is_video for visual in prompt.visuals)
    assert np.array_equal(prompt.positions, oracle.positions(prompt).numpy())
    state = engine.states([prompt])[0]
    wanted = oracle.hidden(prompt).numpy()
    assert isinstance(state, np.ndarray)
    assert np.abs(state / np.linalg.norm(state) - wanted / np.linalg.norm(wanted)).max() <= 1e-5


@pytest.mark.parametrize("max_length", [64, 100, 129])
@pytest.mark.parametrize("name", ["text long", "text chinese", "image and text", "instruction no_period"])
def test_over_long_text(
    name: str, max_length: int, given: dict[str, Any], oracle: Oracle, engine: Engine, checkpoint: Path
) -> None:
    """Cut on the right to max_length - 1, and then the pooled token again."""
    item = dict(given[name])
    item["text"] = item["text"] * 60
    preparer = Preparer(Tokenizer(checkpoint / "tokenizer.json"), Reader(), Budgets(max_length=max_length))
    prompt = preparer.embedding(Item(**item))
    assert len(prompt) == max_length
    assert prompt.notes
    assert prompt.ids.tolist() == oracle.ids(chat(name, item, prompt, "4.57"), max_length)
    state = engine.states([prompt])[0]
    wanted = oracle.hidden(prompt).numpy()
    assert isinstance(state, np.ndarray)
    assert np.abs(state / np.linalg.norm(state) - wanted / np.linalg.norm(wanted)).max() <= 1e-5


QUERIES = ["text english", "text chinese", "image 97x41", "image and text", "frames two", "empty"]
DOCUMENTS = [
    "text german",
    "text empty_string",
    "text code",
    "image 1x1",
    "images two",
    "mixed",
    "file one_second",
    "empty",
]


@pytest.mark.parametrize("query", QUERIES)
def test_reranker(query: str, given: dict[str, Any], oracle: Oracle, checkpoint: Path) -> None:
    """Log-odds against the two rows of transformers' language-model head, prompts against its tokenizer."""
    reranker = Reranker.load(str(checkpoint), dtype="float32")
    preparer = Preparer(reranker._preparer.tokenizer, Reader(), Budgets(max_length=10_240))
    question = {key: value for key, value in given[query].items() if key != "instruction"}
    documents = [{key: value for key, value in given[name].items() if key != "instruction"} for name in DOCUMENTS]
    instruction = "Given a search query, retrieve relevant candidates that answer the query."
    yes, no = oracle.tokenizer.convert_tokens_to_ids(["yes", "no"])
    wanted = []
    for document in documents:
        sides = preparer.read(Item(**question)), preparer.read(Item(**document))
        prompt = preparer.pair(*sides, instruction=instruction)
        split = len(sides[0].clips) + len(sides[0].images)
        parts = []
        for item, visuals in ((question, prompt.visuals[:split]), (document, prompt.visuals[split:])):
            text = item.get("text", "")
            body = shown(visuals, timestamps("", item), "4.57") + (text if isinstance(text, str) else "".join(text))
            parts.append("NULL" if "text" not in item and not visuals else body)
        rendered = (
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
            'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
            f"<Instruct>: {instruction}<Query>:{parts[0]}\n<Document>:{parts[1]}<|im_end|>\n<|im_start|>assistant\n"
        )
        assert prompt.ids.tolist() == oracle.tokenizer(rendered, add_special_tokens=False)["input_ids"]
        logits = oracle.logits(prompt)
        wanted.append(float(logits[yes] - logits[no]))
    odds = reranker.log_odds(Item(**question), [Item(**document) for document in documents])
    assert np.abs(odds - wanted).max() <= 1e-4
    assert np.ptp(wanted) > 1e-2
    scores = reranker.score(Item(**question), [Item(**document) for document in documents])
    assert np.abs(scores - 1 / (1 + np.exp(-np.array(wanted)))).max() <= 1e-5


@pytest.mark.parametrize("spelling", ["4.57", "5"])
def test_both_spellings_of_the_configuration(spelling: str, tmp_path: Path, oracle: Oracle, engine: Engine) -> None:
    from tests.parity.checkpoints import random_checkpoint

    folder = random_checkpoint(tmp_path / "it", seed=1, spelling=spelling)
    vector = Embedder.load(str(folder), dtype="float32").embed(["a red bicycle"])[0]
    prompt = Preparer(Tokenizer(folder / "tokenizer.json"), Reader(), Budgets()).embedding(Item(text="a red bicycle"))
    wanted = oracle.hidden(prompt).numpy()
    assert np.abs(vector - wanted / np.linalg.norm(wanted)).max() <= 1e-5
