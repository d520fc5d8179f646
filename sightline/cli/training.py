"""``sightline train``: the commands of training and their options. What they do stands in ``sightline.train``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from sightline.cli.options import DeviceOption, DtypeOption, JsonOption, ModelOption
from sightline.cli.show import guarded, note, number, put_json, say

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Train, mine, merge: the report's recipe on data of your own (docs/training.md).",
)


ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG.toml", help="one stage (docs/training.md has its keys)", show_default=False)
]


@app.command()
@guarded
def embedder(config: ConfigArgument, as_json: JsonOption = False) -> None:
    """Train an embedder for one stage.

    The same command goes on with a run that was stopped. The trained model is the folder "model" beside log and curves
    in the folder "out" of the file. Several GPUs: accelerate launch -m sightline train embedder CONFIG.toml
    """
    _train(config, "embedder", as_json=as_json)


@app.command()
@guarded
def reranker(config: ConfigArgument, as_json: JsonOption = False) -> None:
    """Train a reranker for one stage.

    As for an embedder; its tasks are of kind yes_no.
    """
    _train(config, "reranker", as_json=as_json)


def _train(config: Path, role: Literal["embedder", "reranker"], *, as_json: bool) -> None:
    from sightline.train import config as stages
    from sightline.train.stage import train

    stage = stages.read(config, role)
    model = train(stage, role, screen=not as_json)
    if os.environ.get("RANK", "0") != "0":  # one of several processes has the word
        return
    if as_json:
        put_json({"out": stage.out, "model": model, "steps": stage.steps})
    else:
        say(f"{model}: trained for {number(stage.steps, 'step')}; log and curves are in {stage.out}")


@app.command()
@guarded
def mine(
    data: Annotated[
        list[Path], typer.Argument(metavar="DATA", help="JSONL or Parquet files of queries and what answers them")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="the same rows, refined and with hard negatives")],
    model: ModelOption = None,
    reranker: Annotated[
        str | None, typer.Option(help="also write its log-odds, for an embedder to learn from (kind distil)")
    ] = None,
    corpus: Annotated[
        list[Path] | None, typer.Option(help="JSONL of further documents to take negatives from; repeatable")
    ] = None,
    negatives: Annotated[int, typer.Option(help="negatives of each query")] = 7,
    min_positive: Annotated[
        float, typer.Option(help="cosine that a positive must be over; a row with none left is dropped; -1 keeps all")
    ] = 0.3,
    margin: Annotated[
        float, typer.Option(help="a negative scores under the mean of the row's positives plus this")
    ] = 0.0,
    skip: Annotated[int, typer.Option(help="leave out this many of the best-ranked candidates")] = 0,
    min_negatives: Annotated[int, typer.Option(help="drop rows with fewer; kind distil wants all of them")] = 0,
    instruction: Annotated[
        str | None, typer.Option(help="of queries without one of their own; else the model's own")
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find hard negatives, drop doubtful positives.

    All documents of the data are embedded and searched for each query: what ranks high and is no answer is a hard
    negative; what scores above the answers is taken for one that nobody has marked. The two thresholds are our own,
    the report does not print its; look at the counts, and at a few rows, before training.
    """
    from sightline.cli import models
    from sightline.rerank import Reranker
    from sightline.train import mine as mining
    from sightline.train.records import open_records

    rules = mining.Rules(
        negatives=negatives,
        min_positive=min_positive,
        margin=margin,
        skip=skip,
        min_negatives=min_negatives,
        instruction=instruction,
    )
    records = open_records(*data)
    settings = models.settings_of(device=device, dtype=dtype)
    judge = None
    if reranker is not None:
        judge = Reranker.load(reranker, device=settings.device or None, dtype=settings.dtype or None, settings=settings)
    embedder = models.load_embedder(model or settings.model, settings)
    documents = (item for path in corpus or () for item in mining.read_corpus(path))
    done = mining.mine(records, out, embedder, rules, corpus=documents, judge=judge)
    if as_json:
        put_json({"out": out, **asdict(done)})
        return
    say(f"{number(done.kept, 'row')} of {done.rows:,} in {out}")
    for count, why in (
        (done.dropped_weak, f"rows dropped: no positive scores over {min_positive:g}"),
        (done.dropped_unreadable, "rows dropped: none of their positives can be read"),
        (done.dropped_query, "rows dropped: their query cannot be read"),
        (done.dropped_few, f"rows dropped: fewer than {min_negatives} negatives"),
        (done.positives, "positives kept"),
        (done.positives_weak, f"positives dropped: they score {min_positive:g} or less"),
        (done.positives_unreadable, "positives dropped: they cannot be read"),
        (done.positives_repeated, "positives dropped: the row has an equal one"),
        (done.negatives, "negatives written"),
        (done.negatives_wrong, "negatives of the data dropped: they answer the same query, or cannot be read"),
        (done.near, "candidates passed over: they score as high as answers"),
        (done.short, f"rows with fewer than {negatives} negatives"),
        (done.documents_unreadable, "documents that cannot be read"),
    ):
        if count:
            say(f"  {count:>9,}  {why}")


@app.command()
@guarded
def merge(
    checkpoints: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="folders or Hub ids, of equal shapes; the first gives all but weights"),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder to make")],
    how: Annotated[
        str, typer.Option(help="average; task, base + sum of w (model - base); slerp, along the arc between two")
    ] = "average",
    weights: Annotated[
        str | None, typer.Option(help='one for each checkpoint, such as "0.6 0.4"; equal ones where none are given')
    ] = None,
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="for task: what they were trained from")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="take the place of a folder of that name")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make one checkpoint of several.

    The report's last stage: what distillation won and what it lost, averaged with the stage before it. One tensor of
    each is in memory at a time.
    """
    from sightline.errors import ConfigError
    from sightline.model.weights import find
    from sightline.train import merge as merging

    try:
        shares = None if weights is None else [float(part) for part in weights.replace(",", " ").split()]
    except ValueError:
        raise ConfigError(f'--weights are numbers, such as "0.6 0.4", not {weights!r}') from None
    if "builtin" in (*checkpoints, base):
        raise ConfigError("builtin is an embedder and a reranker: give the folder that sightline.builtin.path() names")
    way = next((one for one in merging.HOWS if one == how), None)
    if way is None:
        raise ConfigError(f"--how is one of {', '.join(merging.HOWS)}, not {how!r}")
    merging.checked(len(checkpoints), how, shares, base is not None)  # before gigabytes are fetched
    done = merging.merge(
        [find(name).folder for name in checkpoints],
        out,
        how=way,
        weights=shares,
        base=None if base is None else find(base).folder,
        overwrite=overwrite,
    )
    if as_json:
        put_json({"out": out, **asdict(done)})
        return
    parts = ", ".join(f"{share:g} x {folder}" for share, folder in zip(done.weights, checkpoints, strict=True))
    say(f"{number(done.tensors, 'tensor')} in {out}: {how} of {parts}")
    if done.lines:
        note(f"{number(done.lines, 'tensor')} nearly parallel: the line between them was taken")


@app.command()
@guarded
def builtin(
    data: Annotated[Path, typer.Option(metavar="DIR", help="folder with pairs.parquet and images.parquet")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder of all stages; one that is there goes on")],
    steps: Annotated[float, typer.Option(metavar="FACTOR", help="times the steps of every stage")] = 1.0,
    batch: Annotated[float, typer.Option(metavar="FACTOR", help="times the batch of every task")] = 1.0,
    rate: Annotated[float, typer.Option(metavar="FACTOR", help="times the learning rates")] = 1.0,
    stages: Annotated[
        str | None, typer.Option(help="some of the stages, such as words,looking; else all of the recipe")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes that draw batches")] = 1,
    device: DeviceOption = None,
    seed: Annotated[int, typer.Option(help="of everything drawn and of the first weights")] = 0,
    ship: Annotated[
        Path | None, typer.Option(metavar="DIR", help="also write both models here in bf16, as the package has them")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train the built-in models from nothing.

    The stages are words, looking, imitation, s0, s1, binding, reranker, s2 and s3. Each leaves its model, log and
    curves in a folder of its own; a stage that is done is not done again, and one that was stopped goes on.
    With --stages more,more_reranker nothing begins anew: both models go on from the weights that the package carries.
    """
    from sightline.cli import models
    from sightline.errors import ConfigError
    from sightline.train.builtin import recipe

    if min(steps, batch, rate) <= 0:
        raise ConfigError("--steps, --batch and --rate are factors over 0")
    there: list[str] = []

    def done(name: str, folder: Path) -> None:
        there.append(name)
        if not as_json:
            note(f"{name}: {folder.parent}")

    recipe.run(
        data,
        out,
        scale=recipe.Scale(steps=steps, batch=batch, rate=rate),
        stages=recipe.STAGES if stages is None else stages.replace(",", " ").split(),
        seed=seed,
        workers=workers,
        device=models.settings_of(device=device).device,
        screen=not as_json,
        done=done,
    )
    if ship is not None:
        recipe.ship(recipe.results(out, there), ship)
    if as_json:
        put_json({"out": out, "stages": there, "ship": ship})
    else:
        say(f"{out}: {', '.join(there)}" + ("" if ship is None else f"; both models in {ship}"))


@app.command("evaluate-builtin")
@guarded
def evaluate_builtin(
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="folder with pairs.parquet and images.parquet")
    ] = None,
    embedder: Annotated[str, typer.Option(help="builtin, or the folder of a checkpoint")] = "builtin",
    reranker: Annotated[str, typer.Option(help="builtin, the folder of a checkpoint, or none")] = "builtin",
    only: Annotated[str | None, typer.Option(help="some of the trials, such as pages,scenes")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="a tenth of the queries and candidates")] = False,
    rerank_all: Annotated[
        bool, typer.Option("--rerank-all", help="rerank every trial that counts first places; slow")
    ] = False,
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="also write the numbers here")] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="measure nothing: set such files side by side; repeatable, in order"),
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Measure the built-in models on what they never saw.

    Prints the table of docs/model-card.md: pages, scenes, photographs, emoji, edits, moments, translations and
    definitions, each with its 95 % interval, with shorter and coarser vectors, and after reranking where that is asked.
    """
    from sightline.errors import ConfigError
    from sightline.train.builtin import evaluate

    if compare:
        say(evaluate.compare(compare))
        return
    if data is None:
        raise ConfigError("--data says where pairs.parquet and images.parquet are")
    if out is not None and not out.resolve().parent.is_dir():
        raise ConfigError(f"there is no folder {out.resolve().parent} to write {out.name} in")
    from sightline.embed import Embedder
    from sightline.rerank import Reranker

    def done(row: evaluate.Row) -> None:
        after = "" if row.reranked is None else f", {row.reranked:.3f} after reranking"
        note(f"{row.task}: {row.measure} {row.value:.3f}{after}")

    report = evaluate.evaluate(
        data,
        Embedder.load(embedder, device=device),
        None if reranker == "none" else Reranker.load(reranker, device=device),
        only=only.replace(",", " ").split() if only else (),
        quick=quick,
        rerank_all=rerank_all,
        done=done,
    )
    if out is not None:
        report.write(out)
    say(evaluate.table(report))
