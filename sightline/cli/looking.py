"""``models``, ``settings`` and ``doctor``: what there is, how it is set, how well it works here."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable
from typing import Any, Final

import typer
from rich.table import Table
from rich.text import Text

import sightline
from sightline.cli import machine, models
from sightline.cli.indexing import say_skipped
from sightline.cli.machine import KnownModel
from sightline.cli.show import clean, console, number, plain, put_json, say, short_path
from sightline.errors import ConfigError, StoreError
from sightline.settings import Settings, library_folder, shown, table

FAILED: Final = frozenset({"skipped", "partly_skipped"})
"""Problems of ``Library.check`` that ``Library.failures`` lists as well."""
NO_DAMAGE: Final = FAILED | {"changed_file", "missing_file", "unfinished"}
"""Problems of ``Library.check`` that say something of the files, not of the index."""
MOST_PROBLEMS: Final = 50
MEASURE_S: Final = 2.0
"""Seconds that each measurement takes, roughly."""


def known_models() -> list[KnownModel]:
    """The models known by name, the built-in ones first, with the sizes their files have."""
    return [*_builtin_models(), *machine.QWEN]


def _builtin_models() -> list[KnownModel]:
    import json

    from sightline import builtin

    found = []
    for task in ("embedder", "reranker"):
        files = list(builtin.path(task).glob("*.safetensors"))
        parameters = dim = 0
        for file in files:
            with file.open("rb") as opened:  # the header of safetensors: 8 bytes of length, then JSON
                header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
            for name, tensor in header.items():
                if name != "__metadata__":
                    count = 1
                    for size in tensor["shape"]:
                        count *= size
                    parameters += count
        config = builtin.path(task) / "config.json"
        if task == "embedder" and config.is_file():
            about = json.loads(config.read_text(encoding="utf-8"))
            dim = int(about.get("text_config", about).get("hidden_size", 0))
        size = sum(file.stat().st_size for file in files) / machine.GB
        found.append(KnownModel("builtin", task, parameters, round(size, 3), dim))
    return found


def show_models(*, as_json: bool) -> None:
    """The table of models known by name."""
    here = machine.look()
    known = known_models()
    if as_json:
        put_json(
            {
                "machine": plain(here),
                "models": [{**plain(model), "fits": here.carries(model.size_gb) or None} for model in known],
            }
        )
        return
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, justify in (("name", "left"), ("task", "left"), ("parameters", "right"), ("size", "right")):
        rows.add_column(name, justify=justify)  # type: ignore[arg-type]
    rows.add_column("dimensions", justify="right")
    rows.add_column("can this machine carry it?")
    for model in known:
        rows.add_row(
            Text(model.name, style="bold"),
            model.task,
            f"{model.parameters / 1e6:,.1f} M",
            f"{model.size_gb:.1f} GB" if model.size_gb >= 0.1 else f"{model.size_gb * 1000:.0f} MB",
            f"64 … {model.dim}" if model.dim else "",
            here.verdict(model.size_gb),
        )
    console().print(rows)
    gpu = f", {clean(here.gpu)} with {here.gpu_memory_gb:.0f} GB" if here.gpu else ", no GPU"
    say(f"this machine: {here.memory_gb:.0f} GB of memory, {number(here.cores, 'core')}{gpu}")
    say("any other checkpoint of these families: a Hub id, modelscope:ID, or a folder")


def show_settings(settings: Settings, *, as_json: bool) -> None:
    """Every setting with its environment name, its value now and what it means."""
    listed = [
        {"name": name, "environment": variable, "value": shown(settings, name), "default": default, "help": text}
        for name, variable, default, text in table()
    ]
    if as_json:
        put_json(listed)
        return
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("environment name", "value", "meaning"):
        rows.add_column(name, overflow="fold")
    for one in listed:
        changed = str(one["value"]) != one["default"]
        value = Text(clean(str(one["value"])) or "—", style="bold" if changed else "")
        rows.add_row(Text(str(one["environment"])), value, Text(str(one["help"])))
    console().print(rows)


# --- doctor ----------------------------------------------------------------------------------------------------------


def doctor(settings: Settings, *, model: str | None, speed: bool, repair: bool, dry_run: bool, as_json: bool) -> None:
    """Versions, device, speed, and the health of the index, after what can be repaired was."""
    if dry_run and not repair:
        raise ConfigError("--dry-run says what --repair would do: give both")
    here = machine.look()
    told: dict[str, Any] = {"versions": _versions(), "machine": plain(here)}
    name = model or models.BUILTIN
    if speed:
        told["speed"] = {"model": name, **_speed(name, settings)}
    if repair:
        told["repair"] = _repair(settings, dry_run)
    told["index"] = _health(settings)
    if as_json:
        put_json(told)
    else:
        _say_doctor(told)
    if any(problem["code"] not in NO_DAMAGE for problem in told["index"]["problems"]):
        raise typer.Exit(StoreError.exit_code)


def _versions() -> dict[str, str]:
    versions = {"sightline": sightline.__version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "tokenizers", "pillow", "av", "pypdfium2", "lancedb", "pylance"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # pragma: no cover - all of them are required
            versions[package] = "missing"
    return versions


def _speed(name: str, settings: Settings) -> dict[str, Any]:
    import numpy as np

    started_s = time.monotonic()
    embedder = models.load_embedder(name, settings)
    load_s = time.monotonic() - started_s
    rng = np.random.default_rng(0)
    words = np.array(["bread", "bees", "trains", "of", "the", "in", "winter", "and", "a", "page", "red", "small"])
    texts = [" ".join(rng.choice(words, 30)) + "." for _ in range(16)]
    pictures = [rng.integers(0, 256, (448, 448, 3), dtype=np.uint8) for _ in range(4)]
    return {
        "device": settings.device or _device(embedder),
        "dtype": embedder.card.dtype,
        "load_s": round(load_s, 2),
        "texts_per_s": round(_per_second(lambda: embedder.embed(texts), len(texts)), 1),
        "images_per_s": round(_per_second(lambda: embedder.embed([{"image": p} for p in pictures]), len(pictures)), 2),
        "matmul_gflops": round(_matmul(settings), 0),
    }


def _device(embedder: Any) -> str:
    device = getattr(embedder, "device", None)
    return str(device) if device is not None else "automatic"


def _per_second(work: Callable[[], Any], items: int) -> float:
    """Items per second after one round to warm up."""
    work()
    rounds, started_s = 0, time.monotonic()
    while rounds < 1 or time.monotonic() - started_s < MEASURE_S:
        work()
        rounds += 1
    return items * rounds / (time.monotonic() - started_s)


def _matmul(settings: Settings) -> float:
    """10^9 floating-point operations per second in the product of two 1024 x 1024 matrices, float32."""
    import torch

    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    left, right = (torch.rand(1024, 1024, device=device) for _ in range(2))

    def work() -> None:
        (left @ right)[0, 0].item()

    return _per_second(work, 1) * 2 * 1024**3 / 1e9


def _repair(settings: Settings, dry_run: bool) -> dict[str, Any]:
    """What was repaired, or would be: the ledger first, for nothing opens without it."""
    from sightline.library import is_index, repair_ledger

    folder = library_folder(settings)
    repaired = []
    if is_index(folder):
        ledger = repair_ledger(folder, dry_run)
        repaired += [] if ledger is None else [ledger]
        if ledger is None or not dry_run:
            with models.open_to_look(settings) as library:
                repaired += library.repair(dry_run).repaired
    return {"dry_run": dry_run, "repaired": [plain(one) for one in repaired]}


def _health(settings: Settings) -> dict[str, Any]:
    from sightline.library import is_index, repair_ledger

    folder = library_folder(settings)
    if not is_index(folder):
        return {"path": str(folder), "exists": False, "problems": [], "failures": []}
    if repair_ledger(folder) is not None:  # nothing else can be told
        detail = "the ledger is damaged; sightline doctor --repair starts it again from what is indexed"
        problem = {"code": "ledger_damaged", "detail": detail, "path": ""}
        return {"path": str(folder), "exists": True, "problems": [problem], "failures": []}
    with models.open_to_look(settings) as library:
        stats = library.stats()
        problems = library.check()
        failures = library.failures()
    return {
        "path": str(folder),
        "exists": True,
        "model": stats.model.model,
        "reranker": stats.reranker or None,
        "files": stats.files,
        "pending": stats.pending,
        "skipped": stats.skipped,
        "rows": stats.rows,
        "kinds": dict(stats.kinds),
        "bytes": stats.bytes,
        "problems": [plain(problem) for problem in problems if problem.code not in FAILED],
        "failures": [plain(failure) for failure in failures],
    }


def _say_doctor(told: dict[str, Any]) -> None:
    say("  ".join(f"{name} {version}" for name, version in told["versions"].items()))
    here = told["machine"]
    gpu = f", {clean(here['gpu'])} ({here['gpu_memory_gb']:.0f} GB)" if here["gpu"] else ", no GPU"
    say(f"machine: {here['memory_gb']:.0f} GB of memory, {number(here['cores'], 'core')}{gpu}")
    if "speed" in told:
        speed = told["speed"]
        say(
            f"model: {clean(speed['model'])}, {speed['dtype']}, device {speed['device']}, loaded in {speed['load_s']} s"
        )
        say(
            f"speed: {speed['texts_per_s']:,.0f} texts/s, {speed['images_per_s']:,.1f} images/s, "
            f"{speed['matmul_gflops']:,.0f} GFLOP/s in matrix products"
        )
    for one in told.get("repair", {}).get("repaired", []):
        say(f"repair: {clean(one['detail'])} [{one['code']}]")
    if "repair" in told and not told["repair"]["repaired"]:
        say("repair: nothing to do")
    index = told["index"]
    where = short_path(index["path"])
    if not index["exists"]:
        say(f"index: none in {where} yet; make one: sightline index FOLDER…")
        return
    if "model" in index:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in index["kinds"].items())
        say(
            f"index: {where}, built with {clean(index['model'])}, {number(index['files'], 'file')}, "
            f"{number(index['rows'], 'unit')}{f' ({kinds})' if kinds else ''}, {index['bytes'] / 1e6:.1f} MB"
        )
    problems = index["problems"]
    damage = [problem for problem in problems if problem["code"] not in NO_DAMAGE]
    say(Text("health: damaged", style="bold red") if damage else Text("health: sound", style="bold green"))
    for problem in problems[:MOST_PROBLEMS]:
        say(f"  {clean(problem['detail'])} [{problem['code']}]")
    if len(problems) > MOST_PROBLEMS:
        say(f"  … and {len(problems) - MOST_PROBLEMS:,} more; --json lists them all")
    if index["failures"]:
        from sightline.types import Skipped

        failures = [Skipped(**failure) for failure in index["failures"]]
        say_skipped(failures, f"{number(len(failures), 'file or page', 'files and pages')} could not be indexed:")
