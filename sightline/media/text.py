r"""Text files: bytes become words with a recorded encoding, words become blocks, blocks become passages.

``blocks`` follows the structure of the text (headings, paragraphs, table rows, functions); ``passages`` merges
and splits blocks so that none is over a token budget. Both stream: memory grows with a block, not with the file.

>>> [p.text for p in passages(blocks("One. Two.\n\nThree."), 2, lambda text: len(text.split()))]
['One. Two.', 'Three.']
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import BinaryIO, Final, Literal, TypeAlias

from sightline.errors import MediaError
from sightline.types import Unit

TextFormat: TypeAlias = Literal["plain", "markdown", "html", "csv", "code"]

SUFFIX_FORMATS: Final[dict[str, TextFormat]] = {
    **dict.fromkeys((".md", ".markdown", ".mdx", ".rst"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys(
        (".py", ".pyi", ".js", ".mjs", ".jsx", ".ts", ".tsx", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".java", ".go"),
        "code",
    ),
    **dict.fromkeys(
        (".rs", ".rb", ".php", ".swift", ".kt", ".scala", ".sh", ".bash", ".lua", ".pl", ".r", ".jl", ".sql", ".css"),
        "code",
    ),
}
"""File suffix -> how the text is cut. Chosen only after the bytes were found to be text."""

CHUNK_BYTES: Final = 2**20
"""Bytes read at a time from a text file."""
SAMPLE_BYTES: Final = 65_536
"""Bytes an encoding is judged by."""
MAX_BAD_SHARE: Final = 0.01
"""Share of replacement or control characters above which bytes are not text (safety.md 4b)."""
MAX_LATIN_SHARE: Final = 0.3
"""Share of letters above 0x7F above which a Latin-1 reading is not believed: it would be another encoding, misread."""
MIN_PLAIN_SHARE: Final = 0.02
"""Share of ASCII characters below which bytes with zeros are not read as UTF-16 without a mark."""
BLOCK_CHARS: Final = 4_000
"""Most characters in one block: longer runs are cut at a space, so that a file without newlines stays bounded."""
ROW_GROUP_CHARS: Final = 800
"""Characters of table rows that share one repeated header, about 200 tokens."""
UNIT_CHARS: Final = 8_000
"""Most characters in one text unit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One structural piece of a text.

    Attributes:
        text: its words, without blank lines around.
        title: nearest heading above it, or the title given for the whole text.
        heading: whether it is a heading itself.
    """

    text: str
    title: str = ""
    heading: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A piece of text within the token budget.

    Attributes:
        text: its words.
        title: nearest heading.
    """

    text: str
    title: str = ""


# -- bytes -> str ----------------------------------------------------------------------------------------------------

_HALVES = re.compile(b"\xed[\xa0-\xbf][\x80-\xbf]")
_FOREIGN = re.compile(b"[\x80-\xff]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\x80-\x84\x86-\x9f]")
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _bad_share(text: str) -> float:
    """Share of characters that are controls, replacements or unassigned noncharacters."""
    if not text:
        return 0.0
    return (len(_CONTROL.findall(text)) + text.count("\ufffd") + text.count("\ufffe")) / len(text)


def _decode_start(head: bytes, encoding: str, errors: str, *, whole: bool) -> str | None:
    """The text of the first bytes of a file; a character cut at their end is no error unless they are the whole."""
    try:
        return codecs.getincrementaldecoder(encoding)(errors).decode(head, final=whole)
    except UnicodeDecodeError:
        return None


def _is_chinese(head: bytes) -> bool:
    """Whether bytes that decode as GB18030 are likely to be it: most pairs are of the common rows of GB 2312."""
    pairs = common = position = 0
    while position + 1 < len(head):
        if head[position] < 0x80:
            position += 1
            continue
        lead, trail = head[position], head[position + 1]
        pairs += 1
        common += trail >= 0xA1 and (0xA1 <= lead <= 0xA3 or 0xB0 <= lead <= 0xD7)
        position += 2
    return pairs > 0 and common / pairs >= 0.7


def detect_encoding(head: bytes, *, whole: bool = False) -> str | None:
    """The encoding of the first bytes of a text file, or None when they are not text.

    Tried in this order: byte order mark, UTF-16 without a mark (by its zero bytes), UTF-8, GB18030, Windows-1252
    and Latin-1. A reading with over 1 % of control or replacement characters is refused.

    >>> detect_encoding("naïve café".encode("latin-1")), detect_encoding("自行车是红色的".encode("gb18030"))
    ('cp1252', 'gb18030')
    """
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return encoding if _reads(head, encoding, "replace", whole) else None
    if b"\x00" in head:
        return _with_zeros(head, whole)
    if _reads_as_utf8(head, whole):
        return "utf-8"
    if _reads(head, "gb18030", "strict", whole) and _is_chinese(head):
        return "gb18030"
    for encoding in ("cp1252", "latin-1"):
        text = _decode_start(head, encoding, "strict", whole=whole) or ""
        foreign = sum(char > "\x7f" for char in text)
        if text and _bad_share(text) <= MAX_BAD_SHARE and foreign / len(text) <= MAX_LATIN_SHARE:
            return encoding
    return None


def _reads(head: bytes, encoding: str, errors: str, whole: bool) -> bool:
    text = _decode_start(head, encoding, errors, whole=whole)
    return text is not None and _bad_share(text) <= MAX_BAD_SHARE


def _with_zeros(head: bytes, whole: bool) -> str | None:
    """UTF-16 without a mark, by the side its zero bytes are on; or UTF-8 with a few stray zeros, dropped on reading."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    order = "utf-16-le" if odd > even else "utf-16-be"
    text = _decode_start(head, order, "strict", whole=whole) or ""
    if max(even, odd) > 8 * min(even, odd) and text and _bad_share(text) <= MAX_BAD_SHARE:
        # every text has spaces, digits or line ends; a table of numbers has not
        plain = sum(" " <= char <= "~" or char in "\t\r\n" for char in text)
        return order if plain / len(text) >= MIN_PLAIN_SHARE else None
    return "utf-8" if _reads_as_utf8(head, whole) else None


def _reads_as_utf8(head: bytes, whole: bool) -> bool:
    # half characters are written by programs that write UTF-8 otherwise: they are damage, not another encoding
    text = _decode_start(_HALVES.sub(b"\x1a", head), "utf-8", "replace", whole=whole) or ""
    wrong = text.count("\ufffd")
    right = sum(char > "\x7f" for char in text) - wrong
    # with errors, it is UTF-8 only when there are far more good sequences than bad ones; else it is a Latin text
    return _bad_share(text) <= MAX_BAD_SHARE and (wrong == 0 or right > 4 * wrong)


def late_encoding(data: bytes, file: BinaryIO) -> tuple[bytes, str]:
    """The encoding of a text whose bytes were all ASCII up to these: the sample at its start could not tell.

    Args:
        data: the first chunk with other bytes.
        file: what follows it.

    Returns:
        The chunk with enough of what follows to judge by; one of the encodings that ASCII is a part of.
    """
    data += file.read(SAMPLE_BYTES)
    found = _FOREIGN.search(data)
    start = found.start() if found else 0
    encoding = detect_encoding(data[start : start + SAMPLE_BYTES])
    return data, encoding if encoding in {"gb18030", "cp1252", "latin-1"} else "utf-8"


def clean(text: str) -> str:
    r"""Text without NUL, with ``\n`` for every line end and without other control characters but tab.

    >>> clean("a\r\nb\x00c\x07")
    'a\nbc'
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", text).replace("\x1b", "").replace("\ufffe", "").replace("\ufeff", "")


def decode(data: bytes) -> tuple[str, str]:
    """The whole text of some bytes, and its encoding.

    Raises:
        MediaError: ``empty`` for no bytes, ``binary`` for bytes that are not text.
    """
    if not data:
        raise MediaError("empty")
    encoding = detect_encoding(data[:SAMPLE_BYTES], whole=len(data) <= SAMPLE_BYTES)
    if encoding is None:
        raise MediaError("binary")
    text = data.decode(encoding, "replace")
    if _bad_share(text) > MAX_BAD_SHARE:
        raise MediaError("binary")
    return clean(text), encoding


def decode_stream(file: BinaryIO, encoding: str) -> Iterator[str]:
    """The text of an open file in chunks of about a million characters, for files too big to hold.

    Raises:
        MediaError: ``binary`` at the first chunk with over 1 % of control or replacement characters.
    """
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    held = ""
    ascii_so_far = encoding == "utf-8"
    while True:
        data = file.read(CHUNK_BYTES)
        if ascii_so_far and not data.isascii():
            ascii_so_far = False
            data, encoding = late_encoding(data, file)
            decoder = codecs.getincrementaldecoder(encoding)("replace")
        text = held + decoder.decode(data, final=not data)
        # a carriage return at the end waits for the newline that may follow
        held = "\r" if data and text.endswith("\r") else ""
        text = text[: len(text) - len(held)]
        if len(text) > 200 and _bad_share(text) > MAX_BAD_SHARE:
            raise MediaError("binary")
        if text:
            yield clean(text)
        if not data:
            return


# -- str -> blocks ---------------------------------------------------------------------------------------------------


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    """Lines without their ends; a line over BLOCK_CHARS comes in pieces cut at spaces."""
    held = ""
    for chunk in chunks:
        lines = (held + chunk).split("\n")
        held = lines.pop()
        for line in lines:
            yield from _pieces(line)
        if len(held) > BLOCK_CHARS:
            *ready, held = _pieces(held)
            yield from ready
    if held:
        yield from _pieces(held)


def _pieces(line: str) -> Iterator[str]:
    start = 0
    while len(line) - start > BLOCK_CHARS:
        cut = line.rfind(" ", start + BLOCK_CHARS // 2, start + BLOCK_CHARS)
        cut = start + BLOCK_CHARS if cut < 0 else cut + 1
        yield line[start:cut]
        start = cut
    yield line[start:]


def blocks(text: str | Iterable[str], format: TextFormat = "plain", *, title: str = "") -> Iterator[Block]:
    """The structural pieces of a text, in order, none over ``BLOCK_CHARS`` by much.

    Args:
        text: the text, or its chunks.
        format: ``plain`` and ``code`` cut at a blank line before an unindented line (so that a function stays
            whole), ``markdown`` also at headings and around fenced code, ``html`` at block elements without
            scripts and styles, ``csv`` into groups of rows that repeat the header line.
        title: title of what stands before the first heading.
    """
    chunks = [text] if isinstance(text, str) else text
    if format == "html":
        yield from _html_blocks(chunks, title)
    elif format == "csv":
        yield from _csv_blocks(_lines(chunks), title)
    elif format == "markdown":
        yield from _markdown_blocks(_lines(chunks), title)
    else:
        yield from _plain_blocks(_lines(chunks), title)


def _block(lines: Sequence[str], title: str, *, heading: bool = False) -> Iterator[Block]:
    text = "\n".join(lines).strip("\n")
    if text.strip():
        yield Block(text=text.rstrip(), title=title, heading=heading)


def _plain_blocks(lines: Iterable[str], title: str) -> Iterator[Block]:
    held: list[str] = []
    size = 0
    blank = False
    for line in lines:
        if not line.strip():
            blank = True
            held.append("")
            continue
        if held and ((blank and not line[0].isspace()) or size + len(line) > BLOCK_CHARS):
            yield from _block(held, title)
            held, size = [], 0
        held.append(line)
        size += len(line) + 1
        blank = False
    yield from _block(held, title)


_ATX = re.compile(r" {0,3}#{1,6}[ \t]")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_UNDERLINE = re.compile(r"(={3,}|-{3,}|~{3,}|\^{3,})\s*$")


def _heading(line: str) -> str:
    """The words of a heading with hash marks, or "" for another line."""
    found = _ATX.match(line)
    return line[found.end() :].strip().rstrip("#").rstrip() if found else ""


def _markdown_blocks(lines: Iterable[str], title: str) -> Iterator[Block]:
    held: list[str] = []
    fence = ""
    size = 0
    for line in lines:
        opened = _FENCE.match(line)
        if fence:
            held.append(line)
            size += len(line) + 1
            if opened and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            if not fence or size > BLOCK_CHARS:
                yield from _block(held, title)
                held, size = [], 0
            continue
        heading = _heading(line)
        under = _UNDERLINE.match(line) if len(held) == 1 and held[0].strip() and not held[0][0].isspace() else None
        if heading or under:
            if heading:
                yield from _block(held, title)
            title = (heading or held[0].strip())[:200]
            yield from _block([line] if heading else [held[0]], title, heading=True)
            held, size = [], 0
            continue
        if opened or (not line.strip() and held) or size + len(line) > BLOCK_CHARS:
            yield from _block(held, title)
            held, size = [], 0
        if opened:
            fence = opened[1]
        if line.strip():
            held.append(line)
            size += len(line) + 1
    yield from _block(held, title)


def _csv_blocks(lines: Iterable[str], title: str) -> Iterator[Block]:
    header = ""
    rows: list[str] = []
    size = 0
    for line in lines:
        if not line.strip():
            continue
        if not header:
            header = line[:ROW_GROUP_CHARS]
            continue
        if rows and size + len(line) > ROW_GROUP_CHARS:
            yield from _block([header, *rows], title)
            rows, size = [], 0
        rows.append(line)
        size += len(line) + 1
    if header:
        yield from _block([header, *rows], title)


_HTML_SKIPPED: Final = frozenset({"script", "style", "noscript", "template", "svg", "math", "head"})
_HTML_INLINE: Final = frozenset(
    {
        *("a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "dfn", "em", "font", "i", "kbd", "label", "mark"),
        *("q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"),
    }
)
_HTML_HEADINGS: Final = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})


class _HtmlText(HTMLParser):
    """Collects the words of block elements; scripts, styles and the like are dropped."""

    def __init__(self, title: str) -> None:
        super().__init__(convert_charrefs=True)
        self.title = title
        self.ready: list[Block] = []
        self._words: list[str] = []
        self._size = 0
        self._skipping = ""
        self._in_title = False
        self._row: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title":
            self._in_title = True
        elif self._skipping:
            return
        elif tag in _HTML_SKIPPED and tag != "head":
            self._skipping = tag
        elif tag == "body":
            self._skipping = ""
        elif tag in {"td", "th"}:
            self._words.append(" | " if self._words else "")
        elif tag == "br":
            self._words.append("\n")
        elif tag not in _HTML_INLINE:
            self.flush()

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif self._skipping:
            if tag == self._skipping:
                self._skipping = ""
        elif tag in _HTML_HEADINGS:
            self.flush(heading=True)
        elif tag not in _HTML_INLINE and tag not in {"td", "th"}:
            self.flush()

    def handle_data(self, data: str) -> None:
        if self._in_title:
            if not self.title or self.title == self.title.strip():
                self.title = " ".join(data.split())[:200] or self.title
        elif not self._skipping:
            self._words.append(data)
            self._size += len(data)
            if self._size > BLOCK_CHARS:
                self.flush()

    def flush(self, *, heading: bool = False) -> None:
        lines = (" ".join(line.split()) for line in "".join(self._words).split("\n"))
        text = " ".join(line for line in lines if line)
        self._words.clear()
        self._size = 0
        if text:
            if heading:
                self.title = text[:200]
            for piece in _pieces(text):
                self.ready.append(Block(text=piece.strip(), title=self.title, heading=heading))


def _html_blocks(chunks: Iterable[str], title: str) -> Iterator[Block]:
    parser = _HtmlText(title)
    for chunk in chunks:
        # small feeds keep the parser's own buffer small
        for start in range(0, len(chunk), 65_536):
            parser.feed(chunk[start : start + 65_536])
            yield from parser.ready
            parser.ready.clear()
    parser.close()
    parser.flush()
    yield from parser.ready


# -- blocks -> units and passages ------------------------------------------------------------------------------------


def groups(pieces: Iterable[Block], max_chars: int = UNIT_CHARS) -> Iterator[Block]:
    """Blocks under one heading merged into pieces of at most ``max_chars`` characters, for one ``Unit`` each.

    A heading stands at the head of its group, and headings with no words of their own go with what follows.
    """
    held: list[Block] = []
    size = 0
    for block in pieces:
        starts = block.heading and any(not other.heading for other in held)
        if held and (starts or size + len(block.text) + 2 > max_chars):
            yield Block(text="\n\n".join(other.text for other in held), title=held[-1].title)
            held, size = [], 0
        held.append(block)
        size += len(block.text) + 2
    if held:
        yield Block(text="\n\n".join(other.text for other in held), title=held[-1].title)


_SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？｡；])[」』”’）]*|\n+")
_WORD = re.compile(r"\s+")
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_LINE = re.compile(r"\n+")


def _cut(text: str, where: re.Pattern[str]) -> list[str]:
    """Pieces that end after each match; joined they are the text again."""
    ends = [match.end() for match in where.finditer(text) if 0 < match.end() < len(text)]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True) if end > start]


_LEVELS: Final[tuple[Callable[[str], list[str]], ...]] = (
    lambda text: _cut(text, _PARAGRAPH),
    lambda text: _cut(text, _LINE),
    lambda text: _cut(text, _SENTENCE),
    lambda text: _cut(text, _WORD),
    list,
)
"""Where a text is cut, best place first: paragraphs, lines, sentences, words, characters."""


def _split(text: str, max_tokens: int, count: Callable[[str], int], level: int = 0) -> Iterator[str]:
    """Pieces of a text within the budget; joined they are the text, but for the space at their ends."""
    if count(text.strip()) <= max_tokens or (level == len(_LEVELS) - 1 and len(text) == 1):
        yield text
        return
    pieces = _LEVELS[level](text)
    if len(pieces) == 1:
        yield from _split(text, max_tokens, count, level + 1)
        return
    start = 0
    while start < len(pieces):
        taken = _fitting(pieces, start, max_tokens, count)
        if taken:
            yield "".join(pieces[start : start + taken])
            start += taken
        else:
            yield from _split(pieces[start], max_tokens, count, min(level + 1, len(_LEVELS) - 1))
            start += 1


def _fitting(pieces: Sequence[str], start: int, max_tokens: int, count: Callable[[str], int]) -> int:
    """How many pieces from ``start`` fit together: found by doubling and halving, so in few counts."""

    def fits(number: int) -> bool:
        return count("".join(pieces[start : start + number]).strip()) <= max_tokens

    most = len(pieces) - start
    if not fits(1):
        return 0
    good, step = 1, 1
    while good < most and fits(min(good + step, most)):
        good = min(good + step, most)
        step *= 2
    bad = min(good + step, most + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def passages(pieces: Iterable[Block], max_tokens: int, count: Callable[[str], int]) -> Iterator[Passage]:
    """Blocks merged and split so that none is over ``max_tokens``.

    Blocks are merged while they fit and stand under one heading; a block that does not fit alone is cut at
    paragraphs, lines, sentences (Chinese and Japanese stops too), words, and at last between characters.

    Args:
        pieces: blocks in order.
        max_tokens: most tokens of one passage, at least 1.
        count: how many tokens a plain text takes.
    """
    held = ""
    held_title = ""
    bare = True  # whether only headings are held: they go with what follows
    for block in pieces:
        joined = f"{held}\n\n{block.text}" if held else block.text
        if not bare and (block.heading or count(joined) > max_tokens):
            yield Passage(text=held, title=held_title)
            joined, bare = block.text, True
        held, held_title, bare = joined, block.title, bare and block.heading
        if count(held) > max_tokens:
            *ready, held = (part.strip() for part in _split(held, max_tokens, count))
            yield from (Passage(text=part, title=held_title) for part in ready if part)
            bare = bare or not held
    if held.strip():
        yield Passage(text=held, title=held_title)


def unit_passages(unit: Unit, max_tokens: int, count: Callable[[str], int]) -> Iterator[Passage]:
    """The passages of one text ``Unit``: the seam between the decoder's process and the one that counts tokens."""
    return passages(blocks(unit.text, title=unit.title), max_tokens, count)
