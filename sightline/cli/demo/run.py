"""``sightline demo``: make files, index, ask, check, draw the page."""

from __future__ import annotations

import filecmp
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.text import Text

import sightline
from sightline.cli import models
from sightline.cli.demo import files
from sightline.cli.demo.page import Answer, Report, Shelf, ShownHit, render
from sightline.cli.demo.preview import Previews
from sightline.cli.demo.queries import QUERIES, Query
from sightline.cli.indexing import Shown, say_skipped
from sightline.cli.show import clean, clock, duration, note, number, say, short_path
from sightline.errors import IndexMismatchError, InputError, SightlineError
from sightline.library import Library
from sightline.media.pool import DecodePool
from sightline.protocols import EmbeddingModel
from sightline.settings import Settings
from sightline.types import AddReport, Hit, Item

K: Final = 5
RERANK: Final = 20
"""Candidates the reranker sees: a quarter of what the demo indexes."""
OWN_QUERIES: Final = 3
"""Pictures of the user's folder that are looked for: each should find itself."""
MOST_SHELVED: Final = 60
"""Files of one folder shown in the gallery."""


def run(out: Path, own: Path | None, settings: Settings, *, model: str | None, reranker: str | None) -> None:
    """The whole demo. Prints each question with what came first, and whether that is right."""
    if own is not None and not own.is_dir():
        raise InputError(f"{own} is no folder")
    out = out.expanduser().absolute()
    folder, asked = out / "files", out / "queries"
    note("making files …")
    made = files.make(folder, asked)
    for old in sorted(folder.rglob("*")):  # of an earlier version of the demo
        if old.is_file() and old.relative_to(folder).as_posix() not in {one.name for one in made}:
            old.unlink()
    labels = {one.name: one.label for one in made}
    roots = [folder] if own is None else [folder, own.expanduser().absolute()]
    with _open(out / "index.sightline", settings, model, reranker) as library:
        started_s = time.monotonic()
        with Shown() as shown:
            report = library.add([os.fspath(root) for root in roots], on_event=shown.event)
        if report.interrupted:
            raise KeyboardInterrupt
        library.prune(dry_run=False, force=True)
        library.remove([root for root in library.roots if Path(root) not in roots])  # --dir of an earlier run
        seconds = time.monotonic() - started_s
        say(f"indexed {number(report.seen, 'file')} in {duration(seconds)}, {len(report.skipped)} skipped")
        if report.skipped:
            say_skipped(report.skipped)
        say("")
        with DecodePool(library.settings) as pool:
            demo = _Demo(library, Previews(pool), folder, asked, labels)
            answers = [demo.ask(query) for query in (*QUERIES, *_own_queries(library, own))]
            told = demo.report(report, seconds, answers, roots)
    right = f"{told.num_right} of {len(answers)} right"
    rest = f", {told.num_near} with the right file among the first three; by recall alone {told.num_recalled} right"
    say(Text(f"\n{right}", style="bold") + Text(rest))
    target = out / "index.html"
    try:
        target.write_text(render(told), encoding="utf-8")
    except OSError as error:
        raise SightlineError(f"{target} cannot be written: {error.strerror}") from None
    say(f"the page: {target.as_uri()}")


def _open(place: Path, settings: Settings, model: str | None, reranker: str | None) -> Library:
    """The demo's own index; one of another model is made anew."""
    settings = settings.replace(library=os.fspath(place))
    name = model or settings.model
    second = reranker or settings.reranker
    embedder: EmbeddingModel = models.load_embedder(name, settings)
    judge = None if second == models.NO_RERANKER else models.load_reranker(second, settings)
    if name == models.BUILTIN:
        note(models.builtin_note())
    try:
        return Library.open(place, embedder=embedder, reranker=judge, settings=settings)
    except IndexMismatchError:
        return Library.open(place, embedder=embedder, reranker=judge, settings=settings, rebuild=True)


def _own_queries(library: Library, own: Path | None) -> list[Query]:
    """Some pictures of the user's folder, spread over it: each should find itself."""
    if own is None:
        return []
    root = os.fspath(own.expanduser().absolute())
    names = sorted({hit.path for hit in _pictures(library, root)})
    step = max(1, len(names) // OWN_QUERIES)
    return [
        Query(kind="your picture → itself", image=name, where="kind=image", file=(name,), itself=True)
        for name in names[::step][:OWN_QUERIES]
    ]


def _pictures(library: Library, root: str) -> list[Hit]:
    where = {"kind": "image", "path": root}
    return library.search("a picture", k=1000, rerank=0, where=where)


class _Demo:
    """One run: asks, prints, remembers."""

    def __init__(self, library: Library, previews: Previews, folder: Path, asked: Path, labels: dict[str, str]) -> None:
        self._library = library
        self._previews = previews
        self._folder = folder
        self._asked = asked
        self._labels = labels
        self._number = 0

    def ask(self, query: Query) -> Answer:
        """One question: hits, whether they are right, and a line on the screen."""
        self._number += 1
        image = os.fspath(self._asked / query.image) if query.image else None
        video = os.fspath(self._asked / query.video) if query.video else None
        item = Item(text=query.words or None, image=image, video=video)
        where = query.where.format(scans=_quoted(self._folder / "scans")) or None
        first = self._library.search(item, k=K, rerank=0, where=where)
        started_s = time.monotonic()
        hits = self._library.search(item, k=K, rerank=RERANK, where=where)
        seconds = time.monotonic() - started_s
        shown = tuple(self._shown(query, hit) for hit in hits)
        rank = next((place for place, one in enumerate(shown, start=1) if one.right), None)
        answer = Answer(
            kind=query.kind,
            words=query.words,
            pictures=self._pictures(image, video),
            picture_name=Path(query.image or query.video).name,
            where=query.where.format(scans="scans"),
            wanted=self._wanted(query),
            rank=rank,
            recall_right=bool(first) and self._is_right(query, first[0]),
            seconds=seconds,
            hits=shown,
        )
        self._say(answer)
        return answer

    def report(self, added: AddReport, seconds: float, answers: Sequence[Answer], roots: Sequence[Path]) -> Report:
        """All that the page tells."""
        stats = self._library.stats()
        reranker = self._library.reranker
        embedder = self._library.embedder
        shelves = [self._shelf(part) for part in sorted(self._folder.iterdir()) if part.is_dir()]
        shelves += [self._shelf(root, shallow=False) for root in roots[1:]]
        return Report(
            model=stats.model.model,
            reranker=reranker.card.model if reranker is not None else "none",
            device=str(getattr(embedder, "device", "") or self._library.settings.device or "this machine"),
            version=sightline.__version__,
            num_files=stats.files,
            units=tuple((_KIND_NAMES[kind], count) for kind, count in stats.kinds.items()),
            num_new=added.indexed,
            num_unchanged=added.unchanged,
            index_seconds=seconds,
            skipped=tuple((self._name(one.path), f"{one.detail} [{one.code}]") for one in added.skipped),
            answers=tuple(answers),
            shelves=tuple(shelf for shelf in shelves if shelf.files),
        )

    def _is_right(self, query: Query, hit: Hit) -> bool:
        name = self._name(hit.path)
        if query.answered_by(hit, name if name in self._labels else hit.path):
            return True
        return query.itself and _same_bytes(hit.path, query.image)

    def _shown(self, query: Query, hit: Hit) -> ShownHit:
        name = self._name(hit.path)
        right = self._is_right(query, hit)
        return ShownHit(hit=hit, name=name, label=self._label(hit, name), preview=self._previews.of(hit), right=right)

    def _label(self, hit: Hit, name: str) -> str:
        parts = files.PARTS.get(name)
        if parts and hit.start_s is not None and hit.end_s is not None:
            middle = (hit.start_s + hit.end_s) / 2
            return parts[min(int(middle // files.FILM_PART_S), len(parts) - 1)]
        return self._labels.get(name, "")

    def _pictures(self, image: str | None, video: str | None) -> tuple[bytes, ...]:
        found = [
            self._previews.at(image, "image") if image else None,
            self._previews.at(video, "moment", None, 0.0, 4.0) if video else None,
        ]
        return tuple(jpeg for jpeg in found if jpeg is not None)

    def _wanted(self, query: Query) -> str:
        name = query.file[0]
        parts = [self._name(name) if name not in self._labels else name]
        parts += [f"page {page}" for page in query.pages]
        if query.within is not None:
            parts.append(f"{clock(query.within[0])}–{clock(query.within[1])}")
        label = self._labels.get(name, "")
        if query.within is not None:
            label = files.PARTS[name][int(query.within[0]) // files.FILM_PART_S]
        return " ".join(parts) + (f" ({label})" if label else "")

    def _say(self, answer: Answer) -> None:
        mark = ("✓", "bold green") if answer.rank == 1 else ("✗", "bold red")
        asked = " + ".join(part for part in (answer.picture_name, answer.words) if part)
        where = f"  where {answer.where}" if answer.where else ""
        say(
            Text.assemble(
                mark, f" {self._number:2}  ", (f"{answer.kind}: ", "dim"), (clean(asked), "bold"), (where, "dim")
            )
        )
        for rank, shown in enumerate(answer.hits[:3], start=1):
            hit = shown.hit
            spot = f" page {hit.page}" if hit.page is not None else ""
            if hit.start_s is not None and hit.end_s is not None:
                spot = f" {clock(hit.start_s)}–{clock(hit.end_s)}"
            right = ("  ←", "green") if shown.right else ""
            label = f"  {clean(shown.label)}" if shown.label else ""
            say(Text.assemble(f"      {rank}. {hit.score:.3f}  {clean(shown.name)}{spot}", (label, "dim"), right))
        if answer.rank != 1:
            say(Text(f"      should be {clean(answer.wanted)}", style="dim"))

    def _name(self, path: str) -> str:
        """The path below the demo's files, or as people write it."""
        prefix = os.fspath(self._folder) + os.sep
        return path[len(prefix) :].replace(os.sep, "/") if path.startswith(prefix) else short_path(path)

    def _shelf(self, part: Path, *, shallow: bool = True) -> Shelf:
        """The indexed files of one folder with a preview each."""
        entries: dict[str, tuple[bytes | None, str, str]] = {}
        hits = self._library.search("a", k=1000, rerank=0, where={"path": os.fspath(part)})
        for hit in sorted(hits, key=lambda hit: (hit.path, hit.page or 0, hit.start_s or 0.0)):
            if hit.path not in entries and len(entries) < MOST_SHELVED:
                name = self._name(hit.path)
                entries[hit.path] = (self._previews.of(hit), name.split("/")[-1], self._labels.get(name, ""))
        return Shelf(name=part.name if shallow else short_path(os.fspath(part)), files=tuple(entries.values()))


_KIND_NAMES: Final = {
    "text": "passages of text",
    "image": "pictures",
    "page": "PDF pages",
    "video": "videos",
    "moment": "moments of video",
}


def _same_bytes(one: str, other: str) -> bool:
    """Whether two files are copies: a copy of a picture is as right as the picture."""
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _quoted(path: Path) -> str:
    """A path as a value in a filter."""
    text = os.fspath(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
