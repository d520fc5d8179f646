"""The demo's one HTML page: no script, no file beside it, every text escaped, light and dark."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sightline.cli.show import clean, clock, duration, number
from sightline.types import Hit

LOGO: Final = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="9"/>'
    '<path d="M12 1v6M12 17v6M1 12h6M17 12h6"/></svg>'
)
STYLE: Final = Path(__file__).parent / "page.css"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownHit:
    """A hit with what the page shows of it.

    Attributes:
        hit: the answer.
        name: its path, short.
        label: what the file shows, for people, or "".
        preview: JPEG, or None.
        right: whether it answers the query.
    """

    hit: Hit
    name: str
    label: str
    preview: bytes | None
    right: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A question with what came back.

    Attributes:
        kind: what sort of question.
        words: its text, or "".
        pictures: previews (JPEG) of its image or video.
        picture_name: file name of that.
        where: the filter in words, or "".
        wanted: the right answer, for people.
        rank: of the first right hit, from 1; None when it is not among the hits.
        recall_right: whether the first stage alone puts a right one first.
        seconds: how long it took.
        hits: best first.
    """

    kind: str
    words: str
    pictures: tuple[bytes, ...]
    picture_name: str
    where: str
    wanted: str
    rank: int | None
    recall_right: bool
    seconds: float
    hits: tuple[ShownHit, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelf:
    """One folder of files with their previews, for the gallery: (preview, name, label)."""

    name: str
    files: tuple[tuple[bytes | None, str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All that the page tells."""

    model: str
    reranker: str
    device: str
    version: str
    num_files: int
    units: tuple[tuple[str, int], ...]
    num_new: int
    num_unchanged: int
    index_seconds: float
    skipped: tuple[tuple[str, str], ...]
    answers: tuple[Answer, ...]
    shelves: tuple[Shelf, ...] = field(default=())

    @property
    def num_right(self) -> int:
        """Questions whose first hit is right."""
        return sum(answer.rank == 1 for answer in self.answers)

    @property
    def num_recalled(self) -> int:
        """Questions that recall alone answers rightly."""
        return sum(answer.recall_right for answer in self.answers)

    @property
    def num_near(self) -> int:
        """Questions with a right hit among the first three."""
        return sum(answer.rank is not None and answer.rank <= 3 for answer in self.answers)


def esc(text: str) -> str:
    """Safe in the text and in a quoted attribute of HTML; control characters are shown as escapes.

    >>> esc('<img onerror="x">')
    '&lt;img onerror=&quot;x&quot;&gt;'
    """
    return html.escape(clean(text), quote=True)


class _Pictures:
    """Each picture once, as a style class: the same preview is seen many times."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}

    def name(self, jpeg: bytes) -> str:
        return self._names.setdefault(jpeg, f"p{len(self._names)}")

    def styles(self) -> str:
        rows = (
            f".{name}{{background-image:url(data:image/jpeg;base64,{base64.b64encode(jpeg).decode()})}}"
            for jpeg, name in self._names.items()
        )
        return "\n".join(rows)


def render(report: Report) -> str:
    """The whole page."""
    pictures = _Pictures()
    body = "\n".join(
        (
            _head(report),
            _summary(report),
            *(_answer(number, answer, pictures) for number, answer in enumerate(report.answers, start=1)),
            _gallery(report, pictures),
            _skipped(report),
            f"<footer>Made by <code>sightline demo</code>, version {esc(report.version)}. Photographs: scikit-image. "
            "Everything else was drawn and written for Sightline.</footer>",
        )
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>Sightline demo: {report.num_right} of {len(report.answers)} right</title>
<style>
{STYLE.read_text(encoding="utf-8")}
{pictures.styles()}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _head(report: Report) -> str:
    kinds = " · ".join(f"{count:,} {esc(kind)}" for kind, count in report.units)
    mean = sum(answer.seconds for answer in report.answers) / max(len(report.answers), 1)
    tiles = (
        (f"{report.num_right}<small> of {len(report.answers)}</small>", "right at the first place"),
        (f"{report.num_near}<small> of {len(report.answers)}</small>", "right among the first three"),
        (f"{report.num_recalled}<small> of {len(report.answers)}</small>", "right by recall alone, before reranking"),
        (f"{report.num_files:,}", f"files: {kinds}"),
        (esc(duration(report.index_seconds)), f"to index: {report.num_new:,} new, {report.num_unchanged:,} unchanged"),
        (f"{mean * 1000:,.0f}<small> ms</small>", "a question, recall and reranking"),
    )
    cells = "".join(f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in tiles)
    return f"""<header>
<p class="brand">{LOGO}Sightline</p>
<h1>What was asked, and what was found</h1>
<p class="models">Text, photographs, scans, PDF pages and moments of videos in one index. Embedder
<code>{esc(report.model)}</code>, reranker <code>{esc(report.reranker)}</code>, on {esc(report.device)}.</p>
<div class="tiles">{cells}</div>
</header>"""


def _summary(report: Report) -> str:
    rows = []
    for place, answer in enumerate(report.answers, start=1):
        words = esc(answer.words) if answer.words else ""
        picture = f"<i>{esc(answer.picture_name)}</i>" if answer.picture_name else ""
        asked = " + ".join(part for part in (picture, words) if part)
        rows.append(
            f'<tr><td><a href="#q{place}">{place}</a></td><td>{_mark(answer)}</td><td>{esc(answer.kind)}</td>'
            f'<td dir="auto">{asked}</td><td>{esc(answer.wanted)}</td><td class="n">{answer.rank or "–"}</td></tr>'
        )
    return (
        '<details class="summary"><summary>All questions in one table</summary><div class="scroll"><table><thead><tr>'
        "<th>#</th><th></th><th>sort</th><th>asked</th><th>should find</th><th>place</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _mark(answer: Answer) -> str:
    if answer.rank == 1:
        return '<span class="mark yes" title="the first hit is right">✓</span>'
    if answer.rank is not None and answer.rank <= 3:
        return '<span class="mark near" title="right, but not first">✗</span>'
    return '<span class="mark no" title="not found among the first three">✗</span>'


def _answer(place: int, answer: Answer, pictures: _Pictures) -> str:
    parts = [f'<p class="sort">{esc(answer.kind)}</p>']
    for jpeg in answer.pictures:
        name = pictures.name(jpeg)
        parts.append(f'<div class="ask pic {name}" role="img" aria-label="{esc(answer.picture_name)}"></div>')
    if answer.words:
        parts.append(f'<h2 dir="auto">{esc(answer.words)}</h2>')
    if answer.where:
        parts.append(f'<p class="where"><code>--where</code> {esc(answer.where)}</p>')
    if answer.rank == 1:
        verdict = "right at the first place"
    elif answer.rank is not None:
        verdict = f"right at place {answer.rank}"
    else:
        verdict = "not found"
    parts.append(f'<p class="verdict">{_mark(answer)} {verdict}</p>')
    parts.append(f'<p class="wanted">should find: {esc(answer.wanted)}</p>')
    hits = "".join(_hit(rank, shown, pictures) for rank, shown in enumerate(answer.hits, start=1))
    return (
        f'<section id="q{place}"><div class="question"><span class="count">{place}</span>{"".join(parts)}</div>'
        f'<ol class="hits">{hits or "<li><p>nothing</p></li>"}</ol></section>'
    )


def _hit(rank: int, shown: ShownHit, pictures: _Pictures) -> str:
    hit = shown.hit
    if shown.preview is not None:
        classes = f"pic {pictures.name(shown.preview)}"
        view = f'<div class="{classes}" role="img" aria-label="{esc(shown.label or shown.name)}"></div>'
    else:
        view = f'<blockquote dir="auto">{esc(hit.snippet or hit.title)}</blockquote>'
    spot = ""
    if hit.page is not None:
        spot = f"page {hit.page}"
    elif hit.start_s is not None and hit.end_s is not None:
        spot = f"{clock(hit.start_s)}–{clock(hit.end_s)}"
    badge = f'<span class="spot">{esc(spot)}</span>' if spot else ""
    right = ' class="right"' if shown.right else ""
    label = f'<p class="label" dir="auto">{esc(shown.label)}</p>' if shown.label else ""
    return (
        f'<li{right}><div class="view">{view}<span class="rank">{rank}</span>{badge}</div>'
        f'<p class="name">{esc(shown.name)}</p>{label}'
        f"{_bar('recall', hit.recall_score)}{_bar('rerank', hit.rerank_score)}</li>"
    )


def _bar(name: str, score: float | None) -> str:
    if score is None:
        return ""
    share = max(0.0, min(1.0, score)) * 100
    return (
        f'<div class="bar {name}"><span>{name}</span><i><u style="width:{share:.1f}%"></u></i><b>{score:.3f}</b></div>'
    )


def _gallery(report: Report, pictures: _Pictures) -> str:
    if not report.shelves:
        return ""
    shelves = "".join(_shelf(shelf, pictures) for shelf in report.shelves)
    return f'<h2 class="part">What was indexed</h2><div class="gallery">{shelves}</div>'


def _shelf(shelf: Shelf, pictures: _Pictures) -> str:
    cells = []
    for jpeg, name, label in shelf.files:
        view = (
            f'<div class="pic {pictures.name(jpeg)}"></div>' if jpeg is not None else '<div class="pic text">Aa</div>'
        )
        cells.append(f'<figure>{view}<figcaption dir="auto"><b>{esc(name)}</b>{esc(label)}</figcaption></figure>')
    return f"<h3>{esc(shelf.name)}</h3><div class='shelf'>{''.join(cells)}</div>"


def _skipped(report: Report) -> str:
    if not report.skipped:
        return ""
    rows = "".join(f"<tr><td>{esc(name)}</td><td>{esc(reason)}</td></tr>" for name, reason in report.skipped)
    count = number(len(report.skipped), "file")
    return (
        f'<h2 class="part">Left out: {count}, each with its reason</h2><div class="scroll"><table class="skipped">'
        f"<tbody>{rows}</tbody></table></div>"
    )
