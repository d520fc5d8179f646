"""Writes docs/cli.md: what is said here, and the ``--help`` of every command as it is.

``python docs/make_cli.py`` after a change of an option; a test compares the page with what this would write.
"""

from __future__ import annotations

from pathlib import Path

import typer
from typer.testing import CliRunner

from sightline.cli.app import app
from sightline.settings import table

TARGET = Path(__file__).parent / "cli.md"

HEAD = """# The command line

This page is written by `python docs/make_cli.py`; a test holds it to the program.

Results go to standard output; notes, progress and errors go to standard error. An error is one line,
`error: …`, and an exit code; with `--json` it is one object on standard output,
`{"error": {"type": "StoreError", "message": "…"}}`.

| exit code | meaning |
|---|---|
| 0 | done; also with skipped files, which are listed |
| 1 | an error without a code of its own, such as a folder that cannot be written |
| 2 | what was given cannot be used: an unknown option, an empty query, an unreadable file, an item that failed |
| 3 | a checkpoint is incomplete, unsafe or of another model |
| 4 | one item alone does not fit into memory |
| 5 | the index cannot be read or written, was built with another model, is locked by another process, or is damaged |
| 6 | a package is missing; the line says which extra brings it |
| 70 | a fault in Sightline; `python -X dev -m sightline …` shows where |
| 130 | stopped by Ctrl-C; the next `index` goes on from there |

**Which index.** `--library DIR`, else `$SIGHTLINE_LIBRARY`, else `library.sightline` in the user's data folder:
`$XDG_DATA_HOME/sightline` or `~/.local/share/sightline` on Linux, `~/Library/Application Support/sightline` on a Mac,
`%LOCALAPPDATA%\\sightline` on Windows.

**Which models.** The first `index` decides: `--model` and `--reranker`, else `$SIGHTLINE_MODEL` and
`$SIGHTLINE_RERANKER`, else the built-in ones. The index remembers them, with the revision, and later commands take
them without being told. Another `--model` is refused with the command that builds the index anew (`--rebuild`);
`search --reranker NAME` takes another reranker for one search, `--reranker none` or `--no-rerank` none at all.

**Filters** (`--where`). Conditions are parted by spaces, and all must hold: `kind=page`, `kind=image,moment`,
`path=~/Papers`, `after=2024-01-01`, `before=2025-01-01`, and your own columns from `index --set` with
`=`, `!=`, `<`, `<=`, `>`, `>=`: `year>=2020 author='A. B.'`.

**Names from disk** are shown with control characters, direction marks and bytes that are no UTF-8 written as escapes
(`\\x1b`, `\\u202e`, `\\xff`). JSON carries such bytes as lone surrogates (`"\\udcff"`), as Python reads them.
"""

JSON = """## JSON

Keys are only ever added. Numbers of seconds and scores are JSON numbers; what there is none of is `null`.

`search --json`: one object.

```json
{
  "query": {"text": "a red bicycle", "images": [], "videos": []},
  "where": null,
  "library": "/home/ada/.local/share/sightline/library.sightline",
  "model": "builtin",
  "reranker": "builtin",
  "seconds": 0.213,
  "hits": [
    {
      "rank": 1,
      "score": 0.97,
      "recall_score": 0.81,
      "rerank_score": 0.97,
      "kind": "moment",
      "path": "/home/ada/clips/tour.mp4",
      "page": null,
      "start_s": 12.0,
      "end_s": 20.0,
      "title": "tour",
      "snippet": "",
      "id": "0f3c…"
    }
  ]
}
```

`score` is what the list is sorted by: `rerank_score` where the reranker judged, else `recall_score`. `kind` is `text`,
`image`, `page`, `video` or `moment`; `page` counts from 1.

`index --json`: one object; `seen == indexed + unchanged + deferred + len(skipped)`.

```json
{
  "library": "…", "model": "builtin", "reranker": "builtin",
  "seen": 54, "indexed": 51, "unchanged": 0, "deferred": 0, "units": 75,
  "skipped": [{"path": "/…/empty.jpg", "code": "empty", "detail": "the file is empty"}],
  "interrupted": false,
  "seconds": 12.5,
  "pruned": null
}
```

With `--prune`, `pruned` is `{"dry_run": true, "vanished": [path, …], "rows": 3, "refused": [{"root", "vanished",
"files", "reason"}, …]}`.

`remove --json`: `{"removed": 3}`.

`embed`: one line of JSON for each item, in order:
`{"index": 0, "text": "…", "precision": "float32", "vector": [0.01, …]}`; `"image"` or `"video"` with the
path in the place of `"text"`. An item that cannot be embedded has
`"error": {"type", "code", "message"}` in the place of `"precision"` and `"vector"`, and the exit code is 2.

`rerank --json`: one object:
`{"query": "…", "reranker": "builtin", "results": [{"rank": 1, "index": 2, "score": 0.93, "text": "…"}, …]}`.

`models --json`: `{"machine": {"memory_gb", "cores", "gpu", "gpu_memory_gb"}, "models": [{"name", "task",
"parameters", "size_gb", "dim", "fits"}, …]}`; `fits` is `"gpu"`, `"cpu"` or `null`.

`doctor --json`: `{"versions": {…}, "machine": {…}, "speed": {"model", "device", "dtype", "load_s", "texts_per_s",
"images_per_s", "matmul_gflops"}, "index": {"path", "exists", "model", "reranker", "files", "pending", "skipped",
"rows", "kinds", "bytes", "problems": [{"code", "detail", "path"}], "failures": [{"path", "code", "detail"}]}}`. Without
an index, or with a damaged ledger, there are only `path`, `exists`, `problems` and `failures`; with `--no-speed` there
is no `speed`. With `--repair` there is also `"repair": {"dry_run": true, "repaired": [{"code", "detail", "path"}]}`,
and `problems` are those that are left.

`backup --json` and `restore --json`: `{"path", "files", "bytes", "rows"}` of the folder that was made.

`train mine --json`: one object with `out` and the counts; `rows == kept + dropped_query + dropped_unreadable +
dropped_weak + dropped_few`: `{"out", "rows", "kept", "dropped_query", "dropped_unreadable", "dropped_weak",
"dropped_few", "positives", "positives_weak", "positives_unreadable", "positives_repeated", "negatives",
"negatives_wrong", "near", "short",
"documents", "documents_unreadable"}`.

`train merge --json`: `{"out", "how", "weights": [0.6, 0.4], "tensors", "lines"}`; `lines` counts the nearly parallel
pairs of tensors for which `slerp` took the straight line.

`train builtin --json`: `{"out", "stages": ["words", …], "ship"}`; `ship` is `null` where it was not asked for.

`settings --json`: `[{"name", "environment", "value", "default", "help"}, …]`.
"""


def help_of(*command: str) -> str:
    """What ``sightline COMMAND --help`` prints on a terminal of 80 columns."""
    result = CliRunner().invoke(app, [*command, "--help"], prog_name="sightline", env={"COLUMNS": "80"})
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def commands(group: typer.Typer = app, *above: str) -> list[tuple[str, ...]]:
    """Every command as the words that call it, a group before its own."""
    found = [
        (*above, command.name or command.callback.__name__) for command in group.registered_commands if command.callback
    ]
    for inner in group.registered_groups:
        if inner.name and inner.typer_instance:
            found += [(*above, inner.name), *commands(inner.typer_instance, *above, inner.name)]
    return found


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## sightline\n", f"```text\n{help_of()}\n```\n"]
    for words in commands():
        parts += [f"## sightline {' '.join(words)}\n", f"```text\n{help_of(*words)}\n```\n"]
    parts.append(JSON)
    rows = "\n".join(f"| `{env}` | {f'`{default}`' if default else ''} | {text} |" for _, env, default, text in table())
    parts.append(f"## Settings\n\n| environment name | default | meaning |\n|---|---|---|\n{rows}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
