"""``embed`` and ``rerank``: the two models by themselves, without an index."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from sightline.cli import models
from sightline.cli.show import clean, console, note, number, put_json
from sightline.errors import ConfigError, InputError, ItemError, StoreError
from sightline.settings import Settings
from sightline.types import PRECISIONS, Item

STDIN = "-"


def embed(
    texts: Sequence[str],
    images: Sequence[Path],
    videos: Sequence[Path],
    settings: Settings,
    *,
    model: str | None,
    revision: str | None,
    dim: int | None,
    precision: str,
    instruction: str | None,
    out: Path | None,
) -> None:
    """Vectors of texts, images and videos: lines of JSON, or one .npy file."""
    wanted = next((one for one in PRECISIONS if one == precision), None)
    if wanted is None:
        raise ConfigError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
    if out is not None and out.suffix != ".npy":
        raise ConfigError(f"--out writes a .npy file, not {out.name!r}")
    items = list(_items(texts, images, videos))
    if not items:
        raise InputError("say what to embed: texts, --image FILE, --video FILE, or - for lines of standard input")
    embedder = models.load_embedder(_name(model or settings.model), settings, revision=revision)
    if out is not None:
        vectors = embedder.embed([item for _, item in items], instruction=instruction, dim=dim, precision=wanted)
        try:
            np.save(out, vectors)
        except OSError as error:
            raise StoreError(f"{out} cannot be written: {error.strerror}") from None
        note(f"{number(len(vectors), 'vector')} of {vectors.shape[1]} numbers ({vectors.dtype}) in {out}")
        return
    failed = 0
    for place, result in enumerate(
        embedder.stream([item for _, item in items], instruction=instruction, dim=dim, precision=wanted)
    ):
        line: dict[str, Any] = {"index": place, **items[place][0]}
        if isinstance(result, ItemError):
            failed += 1
            put_json(
                {**line, "error": {"type": "ItemError", "code": result.code, "message": result.detail}}, indent=None
            )
        else:
            put_json({**line, "precision": precision, "vector": result}, indent=None)
    if failed:
        note(f"{number(failed, 'item')} of {len(items)} could not be embedded")
        raise typer.Exit(ItemError.exit_code)


def rerank(
    query: str,
    documents: Sequence[str],
    images: Sequence[Path],
    videos: Sequence[Path],
    settings: Settings,
    *,
    reranker: str | None,
    revision: str | None,
    instruction: str | None,
    as_json: bool,
) -> None:
    """How well each document answers the query, best first."""
    items = list(_items(documents, images, videos))
    if not items:
        raise InputError("give documents to judge: texts, --image FILE or --video FILE")
    name = reranker or settings.reranker
    if name == models.NO_RERANKER:
        raise ConfigError("there is nothing to judge with: the reranker is none")
    judge = models.load_reranker(_name(name), settings, revision=revision)
    scores = judge.score(query, [item for _, item in items], instruction=instruction)
    order = sorted(range(len(items)), key=lambda place: (-float(scores[place]), place))
    results = [
        {"rank": rank, "index": place, "score": float(scores[place]), **items[place][0]}
        for rank, place in enumerate(order, start=1)
    ]
    if as_json:
        put_json({"query": query, "reranker": judge.card.model, "results": results})
        return
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    rows.add_column("#", justify="right", style="dim")
    rows.add_column("score", justify="right")
    rows.add_column("document", overflow="fold")
    for result in results:
        shown = next(str(result[key]) for key in ("text", "image", "video") if key in result)
        rows.add_row(str(result["rank"]), Text(f"{result['score']:.3f}", style="bold"), Text(clean(shown)))
    console().print(rows)


def _items(
    texts: Sequence[str], images: Iterable[Path], videos: Iterable[Path]
) -> Iterable[tuple[dict[str, str], Item]]:
    """Each thing as one item, with what names it in the output."""
    for text in texts:
        lines = (line.rstrip("\r\n") for line in sys.stdin) if text == STDIN else (text,)
        for line in lines:
            yield {"text": line}, Item(text=line)
    for path in images:
        yield {"image": os.fspath(path)}, Item(image=os.fspath(path))
    for path in videos:
        yield {"video": os.fspath(path)}, Item(video=os.fspath(path))


def _name(name: str) -> str:
    if name == models.BUILTIN:
        models.note_builtin_once()
    return name
