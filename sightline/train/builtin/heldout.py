"""What is held out, as files of the repository: ``python -m sightline.train.builtin.heldout --data DIR`` writes them.

Pictures and emoji names are listed one by one. Texts are their sources' and not ours to repeat: for them the file has
the rule, how many rows each source gives up, and the sha256 of the sorted rows, so that anyone with the data can tell
whether theirs are the same.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sightline.train.builtin.corpus import HELD_OUT, NAMES_HELD_OUT, SALT, Corpus, base, name_held_out

FOLDER: Final = Path(__file__).parent / "validation"
TEXTS: Final = ("tatoeba", "wordnet", "wordnet-ex", "banking77", "code", "emoji-xling")


def digest(lines: Iterable[str]) -> str:
    """sha256 of the lines, sorted, each ended by a newline."""
    return hashlib.sha256("".join(line + "\n" for line in sorted(lines)).encode()).hexdigest()


def lists(corpus: Corpus) -> dict[str, str]:
    """File name to contents."""

    def pictures(*sources: str) -> str:
        return "".join(sorted({f"{row.q_image}\n" for src in sources for row in corpus.valid[src]}))

    nlvr = sorted({int((r.d_image or r.neg_image).rsplit("/", 1)[-1].split("-")[0]) for r in corpus.valid["nlvr"]})
    by_language: dict[str, set[str]] = defaultdict(set)
    for row in corpus.valid["emoji-name"]:
        if name_held_out(row.q_image, row.lang):
            by_language[row.lang].add(base(row.q_image))
    emoji = "".join(f"{lang}: {' '.join(sorted(found))}\n" for lang, found in sorted(by_language.items()))
    tones = " ".join(sorted({base(row.q_image) for row in corpus.valid["emoji-tone"]}))
    return {
        "photographs.txt": pictures("clothing", "grocery"),
        "icons.txt": pictures("lucide"),
        "charts.txt": pictures("vega"),
        "nlvr.txt": f"# the first number of a picture's name\n{' '.join(map(str, nlvr))}\n",
        "emoji.txt": f"# language: base characters of whose pictures the names are held out in it\n{emoji}",
        "tones.txt": f"# base characters whose changes of skin tone are held out\n{tones}\n",
        "texts.txt": _texts(corpus),
    }


def _texts(corpus: Corpus) -> str:
    lines = [
        f"# A text is held out when the first 4 bytes of blake2b('{SALT}|' + text), read as a number, leave less than",
        f"# {HELD_OUT} when divided by 100, or when it has the words of such a text; of emoji names less than",
        f"# {NAMES_HELD_OUT}, with the text 'emoji|' + base character + '|' + language. See corpus.py.",
        "# source, rows, sha256 of the sorted rows (language, query, document, with tabs between them)",
    ]
    for src in TEXTS:
        rows = [f"{row.lang}\t{row.q_text}\t{row.d_text}" for row in corpus.valid[src]]
        lines.append(f"{src} {len(rows)} {digest(rows)}")
    lines.append(f"sentences-to-render {len(corpus.valid_sentences)} {digest(corpus.valid_sentences)}")
    names = [f"{lang}\t{name}" for lang, name in corpus.names]
    lines.append(f"emoji-names {len(names)} {digest(names)}")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Writes the files."""
    parser = argparse.ArgumentParser(prog="python -m sightline.train.builtin.heldout", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with pairs.parquet and images.parquet")
    options = parser.parse_args(arguments)
    FOLDER.mkdir(exist_ok=True)
    for name, text in lists(Corpus(options.data)).items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
