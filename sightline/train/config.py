"""One stage of training, as a TOML file says it. The file becomes frozen values here and nowhere else.

::

    start = "Qwen/Qwen3-VL-Embedding-2B"    # a Hub id, a folder, or builtin
    out = "runs/s1"
    steps = 2000

    [lora]                                   # without this table everything of ``learn`` is trained

    [[task]]
    name = "clicks"
    data = "clicks.jsonl"
    batch = 64

Paths are those of the machine or relative to the file's own folder.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from sightline.errors import ConfigError
from sightline.train.batch import Kind

Role = Literal["embedder", "reranker"]
"""What a stage trains."""


def _at_least(name: str, value: float, low: float) -> None:
    if not value >= low:
        raise ConfigError(f"{name} must be at least {low:g}, not {value}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} must be from {low:g} to {high:g}, not {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimiser:
    """The table ``[optimiser]``: which it is, and the course of its learning rate.

    Attributes:
        kind: adamw; or muon, which gives the matrices between layers steps of equal strength in all directions, at the
            same rates (``muon.py``).
        rate: highest learning rate.
        warmup: share of the steps in which the rate grows to it.
        floor: share of it that a cosine ends at.
        weight_decay: of matrices; tables, norms and biases do not decay.
        clip: largest norm of all gradients together.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    rate: float = 1e-4
    warmup: float = 0.03
    floor: float = 0.02
    weight_decay: float = 0.01
    clip: float = 1.0

    def __post_init__(self) -> None:
        _at_least("optimiser.rate", self.rate, 0)
        _between("optimiser.warmup", self.warmup, 0, 0.99)
        _between("optimiser.floor", self.floor, 0, 1)
        _at_least("optimiser.weight_decay", self.weight_decay, 0)
        _at_least("optimiser.clip", self.clip, 1e-9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """The table ``[loss]``.

    Attributes:
        temperature: tau that cosines are divided by.
        graded_temperature: the same of pairs with grades.
        teacher_temperature: what the reranker's log-odds are divided by before the embedder follows them.
        dims: Matryoshka prefixes that each loss is also taken on, beside the whole vector; those not shorter than it
            are left out.
        quantised: rounded vectors that each loss is also taken on.
        symmetric: also have documents look for their queries, and halve the sum.
        beside: also compare queries with queries and documents with documents (first stage of the report; off later).
        margin: an in-batch negative scoring over the positive plus this is taken for a false one; negative: none is.
        listwise: weight of the ranking within a query's candidates beside the reranker's yes-or-no loss.
        balanced: matches weigh as much as all other pairs together in the yes-or-no loss.
    """

    temperature: float = 0.02
    graded_temperature: float = 0.05
    teacher_temperature: float = 1.0
    dims: tuple[int, ...] = (64, 128, 256, 512, 1024)
    quantised: tuple[Literal["int8", "binary"], ...] = ("int8", "binary")
    symmetric: bool = False
    beside: bool = False
    margin: float = 0.1
    listwise: float = 0.0
    balanced: bool = False

    def __post_init__(self) -> None:
        for name in ("temperature", "graded_temperature", "teacher_temperature"):
            _at_least(f"loss.{name}", getattr(self, name), 1e-4)
        _at_least("loss.listwise", self.listwise, 0)
        for dim in self.dims:
            _at_least("loss.dims", dim, 1)

    @property
    def margin_or_none(self) -> float | None:
        """The margin as the losses take it."""
        return None if self.margin < 0 else self.margin


@dataclass(frozen=True, kw_only=True, slots=True)
class Lora:
    """The table ``[lora]``; its defaults are those of the published models' training.

    Attributes:
        rank, alpha: the update of a matrix is alpha / rank times a product of that rank.
        dropout: of what goes into the update.
        targets: linear layers of the decoder.
        vision_targets: linear layers of the vision tower, where ``learn`` has it learn.
    """

    rank: int = 32
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj", "gate_proj")
    vision_targets: tuple[str, ...] = ("qkv", "proj", "linear_fc1", "linear_fc2")

    def __post_init__(self) -> None:
        _at_least("lora.rank", self.rank, 1)
        _at_least("lora.alpha", self.alpha, 1)
        _between("lora.dropout", self.dropout, 0, 0.9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One table ``[[task]]``: pairs that are trained on together.

    Attributes:
        name: in logs and tables.
        data: JSONL or Parquet files (docs/training.md has their columns).
        drawn: name of a source that draws its pairs, such as builtin, instead of ``data``.
        kind: which loss; "" is contrast for an embedder, yes_no for a reranker.
        weight: how often it is chosen, against the others.
        batch: queries in a step, over all processes.
        negatives: hard negatives taken of each query; of a reranker, candidates that do not answer.
        instruction: of queries without one of their own; "" is the model's own.
    """

    name: str
    data: tuple[Path, ...] = ()
    drawn: str = ""
    kind: Kind | Literal[""] = ""
    weight: float = 1.0
    batch: int = 32
    negatives: int = 1
    instruction: str = ""

    def __post_init__(self) -> None:
        if bool(self.data) == bool(self.drawn):
            raise ConfigError(f"task {self.name}: give data, files of pairs, or drawn, the name of a source")
        _at_least(f"task {self.name}: weight", self.weight, 0)
        _at_least(f"task {self.name}: batch", self.batch, 1)
        _at_least(f"task {self.name}: negatives", self.negatives, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A whole file.

    Attributes:
        start: checkpoint to begin with: a Hub id, ``modelscope:ID``, a folder, or builtin.
        revision: commit of a Hub id; "" is the pinned or newest one.
        out: folder of log, checkpoints and the trained model.
        steps: of the whole stage, those of an interrupted run included.
        task: what is learned from.
        optimiser, loss: tables of their own.
        lora: None trains the weights themselves.
        learn: which tower learns.
        device: torch device; "" takes the best there is.
        dtype: of the arithmetic. With bfloat16, what does not learn is also stored so; what learns stays float32,
            because small updates would be rounded away.
        gradient_checkpointing: keep no activations inside a layer: a third more work, a fraction of the memory.
        chunk_tokens: most tokens that go through the network at once; a larger batch goes in several passes with
            cached gradients, to the same result. 0 takes every batch in one.
        max_length: tokens of a prompt.
        min_pixels, max_pixels: area of an image as the model sees it.
        total_pixels, fps, max_frames: of a video.
        save_every: steps between checkpoints.
        log_every: steps between lines of the log.
        workers: processes that make batches ahead.
        seed: of what is drawn.
    """

    start: str
    out: Path
    steps: int
    task: tuple[Task, ...]
    revision: str = ""
    optimiser: Optimiser = Optimiser()
    loss: Loss = Loss()
    lora: Lora | None = None
    learn: Literal["decoder", "vision", "both"] = "decoder"
    device: str = ""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    gradient_checkpointing: bool = False
    chunk_tokens: int = 0
    max_length: int = 2048
    min_pixels: int = 4096
    max_pixels: int = 1_310_720
    total_pixels: int = 4_718_592
    fps: float = 1.0
    max_frames: int = 64
    save_every: int = 200
    log_every: int = 1
    workers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "save_every", "log_every", "workers"):
            _at_least(name, getattr(self, name), 1)
        _at_least("chunk_tokens", self.chunk_tokens, 0)
        _at_least("max_length", self.max_length, 64)
        if not self.task:
            raise ConfigError("a stage needs at least one [[task]]")
        names = [task.name for task in self.task]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"two tasks are called {twice!r}")
        if sum(task.weight for task in self.task) <= 0:
            raise ConfigError("the weights of all tasks are 0")


KINDS: Final[dict[Role, tuple[Kind, ...]]] = {
    "embedder": ("contrast", "classes", "graded", "distil"),
    "reranker": ("yes_no",),
}
"""Losses of each model; the first is that of a task that names none."""


def read(path: Path, role: Role) -> Stage:
    """A stage's file.

    Args:
        path: TOML.
        role: what is trained, which decides the kinds of tasks there may be.

    Raises:
        ConfigError: it cannot be read; a key, type or value is not one of those allowed.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(f"{path} cannot be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    return stage_of(raw, role, path.parent)


def stage_of(raw: Mapping[str, Any], role: Role, folder: Path = Path()) -> Stage:
    """A stage from the file's content; relative paths are looked for in ``folder``. Raises as ``read``.

    >>> stage_of({"start": "builtin", "out": "o", "steps": 9, "tasks": []}, "embedder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    sightline.errors.ConfigError: unknown key 'tasks'; did you mean 'task'? Allowed: start, ...
    """
    stage = _table(Stage, raw, "")
    kinds = KINDS[role]
    tasks = []
    for task in stage.task:
        kind = task.kind or kinds[0]
        if kind not in kinds:
            raise ConfigError(f"task {task.name}: an {role} learns by {', '.join(kinds)}, not {kind!r}")
        tasks.append(dataclasses.replace(task, kind=kind, data=tuple(folder / path for path in task.data)))
    start = stage.start
    if start != "builtin" and (folder / start).is_dir():
        start = str(folder / start)
    return dataclasses.replace(stage, task=tuple(tasks), out=folder / stage.out, start=start)


Value = TypeVar("Value")


def _table(kind: type[Value], raw: Any, where: str) -> Value:
    """A table of the file as the dataclass that describes it."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where.rstrip('.')} must be a table")
    types_of = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    allowed = [field.name for field in fields]
    for key in raw:
        if key not in allowed:
            raise ConfigError(f"unknown key '{where}{key}'{_guess(key, allowed)} Allowed: {', '.join(allowed)}")
    for field in fields:
        if field.name not in raw and field.default is dataclasses.MISSING:
            raise ConfigError(f"the key '{where}{field.name}' is missing")
    return kind(**{key: _value(types_of[key], value, where + key) for key, value in raw.items()})


def _value(kind: Any, raw: Any, name: str) -> Any:
    """A value of the file as the type that a field has."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        known = [part for part in inner if part is not type(None)]
        if all(typing.get_origin(part) is Literal for part in known):
            return _value(Literal[tuple(v for part in known for v in typing.get_args(part))], raw, name)
        return _value(known[0], raw, name)
    if origin is Literal:
        if raw not in inner:
            raise ConfigError(f"{name} must be one of {', '.join(v for v in inner if v)}, not {raw!r}")
        return raw
    if origin is tuple:
        parts = raw if isinstance(raw, list) else [raw]
        return tuple(_value(inner[0], part, name) for part in parts)
    if dataclasses.is_dataclass(kind):
        return _table(kind, raw, f"{name}.")  # type: ignore[arg-type]
    if kind is Path and isinstance(raw, str):
        return Path(raw).expanduser()
    if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if not isinstance(raw, kind) or (isinstance(raw, bool) and kind is not bool):
        said = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}[kind]
        raise ConfigError(f"{name} must be {said}, not {raw!r}")
    return raw


def _guess(key: str, allowed: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key, allowed, 1)
    return f"; did you mean '{near[0]}'?" if near else ";"
