"""``search``: words, images and videos in, ranked places out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from sightline.cli import models
from sightline.cli.show import clean, console, place, plain, put_json, say, short_path
from sightline.errors import InputError
from sightline.settings import Settings
from sightline.types import Hit, Item


def search(
    words: Sequence[str],
    images: Sequence[Path],
    videos: Sequence[Path],
    settings: Settings,
    *,
    k: int,
    where: str | None,
    reranking: bool,
    min_score: float | None,
    instruction: str | None,
    model: str | None,
    reranker: str | None,
    as_json: bool,
) -> None:
    """Search and show the hits."""
    query = query_of(words, images, videos)
    num_reranked = settings.rerank if reranking else 0
    with models.open_to_search(settings, model=model, reranker=reranker, rerank=num_reranked) as library:
        started_s = time.monotonic()
        hits = library.search(
            query, k=k, rerank=num_reranked, where=where, min_score=min_score, instruction=instruction
        )
        seconds = time.monotonic() - started_s
        if as_json:
            judge = library.reranker.card.model if library.reranker is not None else None
            put_json(
                {
                    "query": {
                        "text": " ".join(words) or None,
                        "images": [str(path) for path in images],
                        "videos": [str(path) for path in videos],
                    },
                    "where": where,
                    "library": str(library.path),
                    "model": library.model.model,
                    "reranker": judge,
                    "seconds": round(seconds, 3),
                    "hits": [hit_as_dict(rank, hit) for rank, hit in enumerate(hits, start=1)],
                }
            )
        elif hits:
            console().print(table(hits))
        else:
            rows = library.stats().rows
            say("nothing found" + (f" in {short_path(str(library.path))}, which is empty" if not rows else ""))


def query_of(words: Sequence[str], images: Sequence[Path], videos: Sequence[Path]) -> Item:
    """One query of everything that was given.

    Raises:
        InputError: nothing was given.
    """
    text = " ".join(words).strip()
    if not (text or images or videos):
        raise InputError("say what to look for: words, --image FILE or --video FILE")
    return Item(
        text=text or None, image=[str(path) for path in images] or None, video=[str(path) for path in videos] or None
    )


def hit_as_dict(rank: int, hit: Hit) -> dict[str, Any]:
    """A hit as ``--json`` gives it."""
    return {"rank": rank, **plain(hit)}


def table(hits: Sequence[Hit], title: str | None = None) -> Table:
    """Hits for people: rank, score, kind, where, what is there."""
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title, title_justify="left")
    rows.add_column("#", justify="right", style="dim")
    rows.add_column("score", justify="right")
    rows.add_column("kind", style="cyan")
    rows.add_column("where", overflow="fold", ratio=3)
    rows.add_column("what", overflow="ellipsis", ratio=4)
    for rank, hit in enumerate(hits, start=1):
        rows.add_row(
            str(rank),
            Text(f"{hit.score:.3f}", style="bold"),
            hit.kind,
            Text(place(hit.path, hit.page, hit.start_s, hit.end_s)),
            _what(hit),
        )
    return rows


def _what(hit: Hit) -> Text:
    snippet = clean(" ".join(hit.snippet.split()))
    if len(snippet) > 160:
        snippet = snippet[:159] + "…"
    title = clean(hit.title)
    return Text.assemble((title, "bold"), "  " if title and snippet else "", (snippet, "dim"))
