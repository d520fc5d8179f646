"""Checkpoints of equal shapes made into one, as the report's last stage does with its two before it.

``average``  sum of w_i m_i, weights brought to the sum 1
``task``     base + sum of w_i (m_i - base): what each model learned since the base, so much of each
``slerp``    of two: along the arc between them, tensor by tensor; the second model's share of the weights is how far

Arithmetic is float32; the result has the dtypes of the first checkpoint, and its tokenizer, configuration and
``sightline.json``. One tensor of each checkpoint is in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor

from sightline.errors import ConfigError, WeightsError
from sightline.model.weights import HEAD, Checkpoint
from sightline.train.shards import CODES, SHARD_BYTES, Spec, copy_side_files, whole_folder, write_tensors

How = Literal["average", "task", "slerp"]
HOWS: Final[tuple[How, ...]] = get_args(How)

PARALLEL: Final = 1e-3
"""Sine of an angle under which two tensors count as parallel: the arc is a line there, and dividing by it is noise."""

DTYPES: Final = {code: dtype for dtype, code in CODES.items()}


@dataclass(frozen=True, slots=True)
class Merged:
    """What was done.

    Attributes:
        how: one of ``HOWS``.
        weights: one for each checkpoint, as they were used.
        tensors: how many were written.
        lines: of these, how many pairs were parallel (or zero), where ``slerp`` takes the line between them.
    """

    how: How
    weights: tuple[float, ...]
    tensors: int
    lines: int = 0


def merge(
    sources: Sequence[Path],
    folder: Path,
    *,
    how: How = "average",
    weights: Sequence[float] | None = None,
    base: Path | None = None,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
) -> Merged:
    """Writes one checkpoint made of several.

    Args:
        sources: folders in the published layout; the first gives everything but the weights.
        folder: to be made; it appears under its name when it is whole.
        how: see the top of this module.
        weights: one for each source. ``average`` and ``slerp`` take equal ones when there are none; ``task`` wants
            them said, because 1 for each adds up what the models have in common.
        base: what the sources were trained from, for ``task``.
        shard_bytes: most bytes in one file.
        overwrite: take the place of a folder of that name.

    Raises:
        ConfigError: weights, base or number of sources do not go with ``how``.
        WeightsError: the checkpoints differ in configuration, tokenizer, or the name or shape of a tensor.
    """
    shares = checked(len(sources), how, weights, base is not None)
    checkpoints = [Checkpoint(source) for source in sources]
    started = None if base is None else Checkpoint(base)
    first = checkpoints[0]
    names = _names(first)
    for other in [*checkpoints[1:], *([started] if started else [])]:
        _refuse_other(first, other)
    described = {name: first.described(name) for name in names}
    specs = {name: Spec(shape, DTYPES[code]) for name, (shape, code) in described.items()}
    lines = 0

    def tensor_of(name: str) -> Tensor:
        nonlocal lines
        if how == "slerp":
            merged, straight = slerp(first.tensor(name).float(), checkpoints[1].tensor(name).float(), shares[1])
            lines += straight
            return merged
        # task arithmetic is a weighted sum too, in which the base has what the others leave of 1
        total = torch.zeros(specs[name].shape)
        for share, checkpoint in zip(shares, checkpoints, strict=True):
            total.add_(checkpoint.tensor(name).float(), alpha=share)
        if started is not None:
            total.add_(started.tensor(name).float(), alpha=1 - sum(shares))
        return total

    said = {"how": how, "weights": shares, "sources": [source.name for source in sources]}
    with whole_folder(folder, overwrite=overwrite) as partial:
        copy_side_files(first.folder, partial, dtype=specs[names[0]].dtype)
        write_tensors(partial, specs, tensor_of, shard_bytes=shard_bytes, metadata={"merged": json.dumps(said)})
    return Merged(how, shares, len(specs), lines)


def checked(num_sources: int, how: str, weights: Sequence[float] | None, has_base: bool) -> tuple[float, ...]:
    """The weights as they will be used.

    Raises:
        ConfigError: they do not go with the way of merging.

    >>> checked(2, "average", (3, 1), has_base=False)
    (0.75, 0.25)
    """
    if how not in HOWS:
        raise ConfigError(f"checkpoints are merged by {', '.join(HOWS)}, not {how!r}")
    if num_sources < (1 if how == "task" else 2) or (how == "slerp" and num_sources != 2):
        count = {"average": "two or more checkpoints", "task": "one or more checkpoints", "slerp": "two checkpoints"}
        raise ConfigError(f"{how} takes {count[how]}, not {num_sources}")
    if has_base != (how == "task"):
        raise ConfigError("task arithmetic needs --base, what the checkpoints were trained from; the others take none")
    if weights is None:
        if how == "task":
            raise ConfigError("task arithmetic needs --weights, one for each checkpoint, such as 0.5 0.5")
        weights = [1.0] * num_sources
    if len(weights) != num_sources:
        raise ConfigError(f"{num_sources} checkpoints need {num_sources} weights, not {len(weights)}")
    shares = torch.tensor(list(weights), dtype=torch.float64)
    if not torch.isfinite(shares).all():
        raise ConfigError("weights must be finite")
    if how == "task":
        return tuple(shares.tolist())
    if (shares < 0).any() or shares.sum() <= 0:
        raise ConfigError(f"weights of {how} are parts of a whole: none under 0, not all 0")
    return tuple((shares / shares.sum()).tolist())


def slerp(first: Tensor, second: Tensor, share: float) -> tuple[Tensor, bool]:
    """The point ``share`` of the way along the arc from one tensor to the other.

    Returns:
        the tensor, and whether the straight line was taken because the two are parallel, opposite or zero.
    """
    lengths = (first.norm(dtype=torch.float64), second.norm(dtype=torch.float64))
    product = float(lengths[0] * lengths[1])
    if product == 0:
        return torch.lerp(first, second, share), True
    cosine = torch.sum(first * second, dtype=torch.float64) / product
    angle = torch.arccos(cosine.clamp(-1, 1))
    sine = torch.sin(angle)
    if float(sine) < PARALLEL:
        return torch.lerp(first, second, share), True
    ours, theirs = torch.sin((1 - share) * angle) / sine, torch.sin(share * angle) / sine
    return first * float(ours) + second * float(theirs), False


def _names(checkpoint: Checkpoint) -> list[str]:
    """Its tensors in order; a head that repeats the tied table is left out."""
    tied = checkpoint.config.tie_word_embeddings
    return [name for name in sorted(checkpoint.files) if not (tied and name == HEAD)]


def _refuse_other(first: Checkpoint, other: Checkpoint) -> None:
    """Nothing, unless the two cannot be added up.

    Raises:
        WeightsError: it names what differs.
    """
    if first.config != other.config:
        differing = _difference(asdict(first.config), asdict(other.config))
        raise WeightsError(f"config.json of {first.folder} and {other.folder} differ: {differing}")
    names = set(_names(first)) ^ set(_names(other))
    if names:
        raise WeightsError(f"only one of {first.folder} and {other.folder} has the tensor {min(names)}")
    for name in _names(first):
        ours, theirs = first.described(name), other.described(name)
        if ours[0] != theirs[0]:
            raise WeightsError(f"{name} is {ours[0]} in {first.folder} and {theirs[0]} in {other.folder}")
        for code in (ours[1], theirs[1]):
            if code not in DTYPES:
                raise WeightsError(f"{name} is of dtype {code}; only {', '.join(sorted(DTYPES))} are merged")
    if _tokens(first.folder) != _tokens(other.folder):
        raise WeightsError(f"{first.folder} and {other.folder} have other tokens: their tables do not match row by row")


def _difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    for key, value in ours.items():
        if value != theirs[key]:
            if isinstance(value, dict):
                return _difference(value, theirs[key])
            return f"{key} is {value} and {theirs[key]}"
    return "nothing"


def _tokens(folder: Path) -> tuple[Any, Any]:
    """What gives tokens their numbers. The rest of the file may differ: an embedder's ends every text with a token."""
    try:
        said = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        return said["model"], said.get("added_tokens")
    except (OSError, ValueError, KeyError, TypeError):
        raise WeightsError(f"tokenizer.json in {folder} is missing or cannot be read") from None
