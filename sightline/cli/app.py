"""The commands and their options. What they do stands in the modules beside this, which a command loads.

Defaults and help of options that are settings come from ``sightline.settings``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sightline.cli import training
from sightline.cli.options import (
    DeviceOption,
    DtypeOption,
    ImageOption,
    InstructionOption,
    JsonOption,
    LibraryOption,
    ModelOption,
    QualityOption,
    RerankerOption,
    RevisionOption,
    VideoOption,
    setting,
)
from sightline.cli.show import guarded, say

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find things in text, images, screenshots, PDF pages and videos: by words, by an image, or by both.",
)
app.add_typer(training.app, name="train")


def _version(wanted: bool) -> None:
    if wanted:
        import sightline

        say(f"sightline {sightline.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and end")
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command()
@guarded
def index(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="files and folders", show_default=False)],
    library: LibraryOption = None,
    model: ModelOption = None,
    reranker: RerankerOption = None,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    quality: QualityOption = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COLUMN=VALUE", help="your own column for these files, to filter by; repeatable"),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="compare bytes, not only size and time")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="try again the files that failed twice as they are")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="say which indexed files are gone; with --yes drop them")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="with --prune: drop them, without a question")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="empty the index first; takes another --model")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring files and folders into the index.

    Stop (Ctrl-C) and start again at will: a second run looks only at what is new or changed. Files that cannot be read
    are listed with the reason; everything else goes on. The first run decides the models; the index remembers them.
    """
    from sightline.cli import indexing, models

    settings = models.settings_of(library=library, device=device, dtype=dtype, quality=quality)
    indexing.index(
        paths,
        settings,
        model=model,
        reranker=reranker,
        revision=revision,
        columns=set_ or (),
        rebuild=rebuild,
        verify=verify,
        retry=retry,
        prune=prune,
        yes=yes,
        as_json=as_json,
    )


@app.command()
@guarded
def search(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="WORDS", help="what to look for, in any language")
    ] = None,
    image: ImageOption = None,
    video: VideoOption = None,
    k: Annotated[int, typer.Option("-k", "--k", help="most hits")] = 10,
    where: Annotated[
        str | None, typer.Option(metavar="FILTER", help='for example "kind=page after=2024-01-01 path=~/Papers"')
    ] = None,
    rerank: Annotated[int | None, setting("rerank")] = None,
    no_rerank: Annotated[bool, typer.Option("--no-rerank", help="recall alone: faster, less exact")] = False,
    min_score: Annotated[float | None, typer.Option(help="leave out hits with a lower score, 0 to 1")] = None,
    instruction: InstructionOption = None,
    library: LibraryOption = None,
    model: Annotated[str | None, typer.Option(help="the index's own model, under this name or in this folder")] = None,
    reranker: Annotated[
        str | None, typer.Option(help="another reranker for this search, or none; else that of the index")
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find by words, images, videos, or a mix.

    Answers are passages of text, images, pages of PDFs and moments of videos, the best first. Words are understood by
    meaning and also found as they stand, in any language.
    """
    from sightline.cli import models, searching

    settings = models.settings_of(library=library, device=device, dtype=dtype, rerank=rerank)
    searching.search(
        words or (),
        image or (),
        video or (),
        settings,
        k=k,
        where=where,
        reranking=not no_rerank,
        min_score=min_score,
        instruction=instruction,
        model=model,
        reranker=reranker,
        as_json=as_json,
    )


@app.command()
@guarded
def remove(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="files and folders", show_default=False)],
    library: LibraryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take files out of the index.

    The originals stay where they are.
    """
    from sightline.cli import indexing, models

    indexing.remove(paths, models.settings_of(library=library), as_json=as_json)


@app.command()
@guarded
def embed(
    text: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="texts; - takes each line of standard input")
    ] = None,
    image: ImageOption = None,
    video: VideoOption = None,
    dim: Annotated[int | None, typer.Option(help="numbers in a vector, from 64 up to the model's width")] = None,
    precision: Annotated[str, typer.Option(help="float32, float16, int8 or binary")] = "float32",
    instruction: InstructionOption = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.npy", help="write one array instead of JSON lines")] = None,
    model: ModelOption = None,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    quality: QualityOption = None,
) -> None:
    """Vectors of texts, images and videos.

    One JSON line for each, in the order given: texts, images, videos.
    """
    from sightline.cli import models, scoring

    scoring.embed(
        text or (),
        image or (),
        video or (),
        models.settings_of(device=device, dtype=dtype, quality=quality),
        model=model,
        revision=revision,
        dim=dim,
        precision=precision,
        instruction=instruction,
        out=out,
    )


@app.command()
@guarded
def rerank(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="the question", show_default=False)],
    documents: Annotated[list[str] | None, typer.Argument(metavar="DOC", help="texts to judge")] = None,
    image: ImageOption = None,
    video: VideoOption = None,
    instruction: InstructionOption = None,
    reranker: RerankerOption = None,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    quality: QualityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge how well documents answer a query.

    Scores are probabilities from 0 to 1, best first. Documents are texts, images and videos.
    """
    from sightline.cli import models, scoring

    scoring.rerank(
        query,
        documents or (),
        image or (),
        video or (),
        models.settings_of(device=device, dtype=dtype, quality=quality),
        reranker=reranker,
        revision=revision,
        instruction=instruction,
        as_json=as_json,
    )


@app.command()
@guarded
def serve(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="files and folders to index meanwhile")
    ] = None,
    library: LibraryOption = None,
    model: ModelOption = None,
    reranker: RerankerOption = None,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    host: Annotated[str | None, setting("serve_host", "--host")] = None,
    port: Annotated[int | None, setting("serve_port", "--port")] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(help="file with the keys that callers need, one a line"),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser", help="open the page in your browser")] = False,
) -> None:
    """The web page and the HTTP API.

    A page to search with, and vectors, reranks and searches in the shapes that clients of OpenAI, Cohere, Jina and vLLM
    know (docs/server.md). Listens on this machine alone unless told otherwise, and then only with a key.
    """
    from sightline.cli import models, serving

    settings = models.settings_of(library=library, device=device, dtype=dtype, serve_host=host, serve_port=port)
    serving.serve(
        paths or (),
        serving.with_keys(settings, key_file),
        model=model,
        reranker=reranker,
        revision=revision,
        browser=browser,
    )


@app.command()
@guarded
def mcp(
    library: LibraryOption = None,
    model: Annotated[str | None, typer.Option(help="the index's own model, under this name or in this folder")] = None,
    reranker: Annotated[str | None, typer.Option(help="another reranker, or none; else that of the index")] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    rerank: Annotated[int | None, setting("rerank")] = None,
    http: Annotated[bool, typer.Option("--http", help="over HTTP on --host and --port")] = False,
    host: Annotated[str | None, setting("serve_host", "--host")] = None,
    port: Annotated[int | None, setting("serve_port", "--port")] = None,
) -> None:
    """The index as tools of an assistant (Model Context Protocol).

    Offers search, show and index_status over standard input and output, for programs that start it themselves.
    """
    from sightline.cli import models, serving

    settings = models.settings_of(
        library=library, device=device, dtype=dtype, rerank=rerank, serve_host=host, serve_port=port
    )
    serving.mcp(settings, http=http, model=model, reranker=reranker)


@app.command("models")
@guarded
def models_(as_json: JsonOption = False) -> None:
    """The models known by name.

    With their size, and whether this machine can carry them.
    """
    from sightline.cli import looking

    looking.show_models(as_json=as_json)


@app.command()
@guarded
def doctor(
    library: LibraryOption = None,
    model: Annotated[str | None, typer.Option(help="measure this embedder instead of the built-in one")] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="measure this machine for a few seconds")] = True,
    repair: Annotated[bool, typer.Option("--repair", help="repair what needs no model; originals stay")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="with --repair: only say what would be done")] = False,
    as_json: JsonOption = False,
) -> None:
    """Speed and health of machine and index.

    Versions, device, speed measured with a model, what is wrong with the index, and every file that could not be
    indexed with the reason. Ends with 5 when the index is damaged. With --repair it leaves one row of each id, builds
    bad indexes anew, puts aside what cannot be read, and has the next `index` bring in again what is in doubt.
    """
    from sightline.cli import looking, models

    settings = models.settings_of(library=library, device=device, dtype=dtype)
    looking.doctor(settings, model=model, speed=speed, repair=repair, dry_run=dry_run, as_json=as_json)


@app.command()
@guarded
def backup(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="the index folder", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="a new folder for the copy", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Copy an index while it is used.

    Rows, files and labels as they are at one moment, also while another process writes; nobody waits for it.
    """
    from sightline.cli import copying

    copying.backup(index, out, as_json=as_json)


@app.command()
@guarded
def restore(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="a copy that `backup` made", show_default=False)],
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="a new folder for the index", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Make an index of a copy.

    Every file of the copy is compared with what was written; the index gives the results it gave then.
    """
    from sightline.cli import copying

    copying.restore(out, index, as_json=as_json)


@app.command("settings")
@guarded
def settings_(as_json: JsonOption = False) -> None:
    """Every setting with its value now."""
    from sightline.cli import looking, models

    looking.show_settings(models.settings_of(), as_json=as_json)


@app.command()
@guarded
def demo(
    out: Annotated[Path, typer.Option(help="folder for files, index and page")] = Path("demo"),
    dir_: Annotated[Path | None, typer.Option("--dir", help="a folder of yours to index and search as well")] = None,
    model: ModelOption = None,
    reranker: RerankerOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
) -> None:
    """See it work on files made for it.

    Makes real files of every kind, indexes them, asks questions of every sort, checks each answer, and writes one HTML
    page with all of it. A folder of yours joins in with --dir.
    """
    from sightline.cli import models
    from sightline.cli.demo.run import run

    run(out, dir_, models.settings_of(device=device, dtype=dtype), model=model, reranker=reranker)
