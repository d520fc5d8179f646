"""How fast does the server answer, alone and beside indexing? A real server in a process of its own, built-in model.

    python bench/serve.py                      # on a quiet machine
    python bench/serve.py --quick              # a tiny model and a few requests: shows that the script runs

Three questions, with what is wanted of the answers:

- text queries by 1, 8 and 20 clients: how many a second, and how long one takes (p50 of one client at most 40 ms on two
  idle cores);
- 32 texts a request: texts a second, beside the engine's own in this process, measured in the same run (the server at
  least 90 % of it);
- text queries by 20 clients while pictures are indexed: p99 at most ten times the p50 of one client alone.

The clients are threads of this process and take their share of the machine's cores. How full the passes were and how
many callers shared one comes from the server's own counters.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from bench.measure import RESULTS, SCRATCH, commit, device
from bench.small import checkpoint, items, picture
from bench.watch import observed
from sightline.embed import Embedder

BATCH: Final = 32
"""Texts in one request, as in the question."""
START_S: Final = 600.0
"""Seconds that the server may take to load its models on a busy machine."""
LANES: Final = ("query", "bulk")
TABLE_HEAD: Final = (
    "| task | engine | clients | requests/s | items/s | p50 ms | p99 ms | fill | callers a pass | of the engine "
    "| p99 / idle p50 | others |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a result."""

    engine: str
    task: str
    model: str
    clients: int
    requests: int
    items: int
    requests_s: float
    items_s: float
    p50_ms: float
    p99_ms: float
    passes: int = 0
    fill: float = 0.0
    """Share of the token budget that the passes used."""
    callers_per_pass: float = 0.0
    of_engine: float | None = None
    """Items a second over those of the engine in this process."""
    p99_over_idle: float | None = None
    """p99 over the p50 of one client alone."""
    indexed: int = 0
    """Pictures that the server indexed meanwhile."""
    foreign_cpu: float = 0.0
    """Share of the machine's cores that other processes took, the server among them."""
    device: str = ""
    threads: int = 0
    commit: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    when: str = ""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model and a few requests")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each row")
    parser.add_argument("--repeats", type=int, default=3, help="of the batches; the fastest counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the model")
    parser.add_argument("--pictures", type=int, default=1_500, help="that are indexed meanwhile, at most")
    parser.add_argument("--save", action="store_true", help="append the rows to bench/results/serve.jsonl")
    parser.add_argument("--serve", nargs=2, metavar=("MODEL", "LIBRARY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick:
        given.seconds, given.repeats, given.pictures = 1.0, 1, 6
    torch.set_num_threads(given.threads)
    return given


def main() -> None:
    given = arguments()
    if given.serve:
        serve(*given.serve)
        return
    SCRATCH.mkdir(parents=True, exist_ok=True)
    model = str(checkpoint(SCRATCH, "float32", "tiny")) if given.quick else "builtin"
    bench = Bench(given, "tiny" if given.quick else model)
    work = items("tiny" if given.quick else "small")
    texts = [item.texts[0] for item in work.texts]
    requests = [texts[begin : begin + BATCH] for begin in range(0, len(texts), BATCH)]
    print(TABLE_HEAD)
    engine_s = bench.engine(model, requests)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        pictures = Path(folder, "pictures")
        pictures.mkdir()
        for index in range(given.pictures):
            Image.fromarray(picture(640, 480, index)).save(pictures / f"{index}.jpg")
        with started(model, Path(folder, "library.sightline"), given.threads) as address:
            queries = [item.texts[0] for item in work.queries]
            ask(address, "POST", "/v1/embeddings", embeddings(queries))
            idle_ms = 0.0
            for clients in (1, 8, 20):
                row = bench.server(address, "text query", [[query] for query in queries], clients)
                idle_ms = idle_ms or row.p50_ms
            for clients in (1, 4):
                bench.server(address, f"{BATCH} texts a request", requests, clients, engine_s=engine_s)
            job = ask(address, "POST", "/v1/libraries/default/items", {"paths": [str(pictures)]})["job"]["id"]
            bench.server(
                address,
                "text query beside indexing",
                [[query] for query in queries],
                20,
                idle_ms=idle_ms,
                going=lambda: progress(address, job),
            )
            ask(address, "DELETE", f"/v1/jobs/{job}", None)
    bench.close()


class Bench:
    """Measures and prints."""

    def __init__(self, given: argparse.Namespace, model: str) -> None:
        self.given, self.model = given, model
        self.rows: list[Row] = []
        self.commit = commit()

    def engine(self, model: str, requests: Sequence[list[str]]) -> float:
        """Texts a second of the engine in this process, the same texts in the same batches."""
        embedder = Embedder.load(model)
        embedder.embed(requests[0])
        best: Seen | None = None
        for _ in range(self.given.repeats):
            best = faster(best, self._timed(lambda index: embedder.embed(requests[index % len(requests)]), 1))
        assert best is not None
        mean = sum(len(texts) for texts in requests) / len(requests)
        row = self._row("sightline, in process", f"{BATCH} texts a request", 1, best, mean)
        return row.items_s

    def server(
        self,
        address: str,
        task: str,
        requests: Sequence[list[str]],
        clients: int,
        *,
        engine_s: float = 0.0,
        idle_ms: float = 0.0,
        going: Callable[[], tuple[bool, int]] | None = None,
    ) -> Row:
        """One task by a number of clients at once.

        Args:
            address: of the server.
            task: what it is called.
            requests: the texts of each request; clients go through them in turn.
            clients: threads, each with a connection of its own.
            engine_s: items a second to compare with.
            idle_ms: p50 to compare with.
            going: (whether the work beside still runs, what it has done).
        """
        bodies = [json.dumps(embeddings(texts)).encode() for texts in requests]
        links = threading.local()

        def one(index: int) -> None:
            if not hasattr(links, "link"):
                links.link = http.client.HTTPConnection(address, timeout=START_S)
            headers = {"Content-Type": "application/json"}
            links.link.request("POST", "/v1/embeddings", bodies[index % len(bodies)], headers)
            answer = links.link.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise SystemExit(f"{task}: the server answered {answer.status}: {body[:500]!r}")

        before, done = counters(address), going()[1] if going else 0
        best: Seen | None = None
        for _ in range(self.given.repeats if engine_s else 1):
            best = faster(best, self._timed(one, clients))
        assert best is not None
        after = counters(address)
        lane = {key: after["query", key] - before["query", key] for key in ("passes", "callers", "cost", "budget")}
        indexed = 0
        if going:
            still, indexed = going()
            indexed -= done
            if not still:
                print(f"{task}: indexing ended before the row did; give more --pictures", file=sys.stderr)
        mean = sum(len(texts) for texts in requests) / len(requests)
        rate = best.requests * mean / best.wall_s
        return self._row(
            "sightline serve",
            task,
            clients,
            best,
            mean,
            passes=int(lane["passes"]),
            fill=round(lane["cost"] / max(lane["budget"], 1), 3),
            callers_per_pass=round(lane["callers"] / max(lane["passes"], 1), 2),
            of_engine=round(rate / engine_s, 3) if engine_s else None,
            p99_over_idle=round(float(np.percentile(best.took_ms, 99)) / idle_ms, 2) if idle_ms else None,
            indexed=indexed,
        )

    def _timed(self, one: Callable[[int], object], clients: int) -> Seen:
        """``one`` called by a number of threads for the seconds of a row."""
        took_ms: list[float] = []
        failed: list[BaseException] = []
        end = time.perf_counter() + self.given.seconds

        def client(first: int) -> None:
            index = first
            try:
                while index == first or time.perf_counter() < end:
                    start = time.perf_counter()
                    one(index)
                    took_ms.append((time.perf_counter() - start) * 1000)
                    index += 1
            except BaseException as error:  # of a thread; raised again when all have ended
                failed.append(error)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        with observed() as seen:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if failed:
            raise failed[0]
        return Seen(took_ms, seen["wall_s"], seen["foreign_cpu"])

    def _row(self, engine: str, task: str, clients: int, seen: Seen, mean: float, **more: Any) -> Row:
        row = Row(
            engine=engine,
            task=task,
            model=self.model,
            clients=clients,
            requests=seen.requests,
            items=round(seen.requests * mean),
            requests_s=round(seen.requests / seen.wall_s, 2),
            items_s=round(seen.requests * mean / seen.wall_s, 2),
            p50_ms=round(float(np.percentile(seen.took_ms, 50)), 2),
            p99_ms=round(float(np.percentile(seen.took_ms, 99)), 2),
            foreign_cpu=round(seen.foreign_cpu, 2),
            device=device(),
            threads=self.given.threads,
            commit=self.commit,
            versions={name: version(name) for name in ("torch", "fastapi", "uvicorn", "numpy")},
            when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **more,
        )
        self.rows.append(row)
        print(table_line(row), flush=True)
        return row

    def close(self) -> None:
        """Prints one line of JSON for each row, and keeps them when asked."""
        lines = [json.dumps(asdict(row)) for row in self.rows]
        if self.given.save:
            RESULTS.mkdir(exist_ok=True)
            with (RESULTS / "serve.jsonl").open("a", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in lines)
        print("\n" + "\n".join(lines))


@dataclass(frozen=True)
class Seen:
    """Requests of one row: milliseconds of each, and seconds of all."""

    took_ms: list[float]
    wall_s: float
    foreign_cpu: float

    @property
    def requests(self) -> int:
        """How many."""
        return len(self.took_ms)


def faster(best: Seen | None, seen: Seen) -> Seen:
    """The one with more requests a second."""
    return seen if best is None or seen.requests / seen.wall_s > best.requests / best.wall_s else best


def table_line(row: Row) -> str:
    """One line of the table in Markdown."""
    share = "" if row.of_engine is None else f"{row.of_engine:.0%}"
    times = "" if row.p99_over_idle is None else f"{row.p99_over_idle:.1f}"
    cells = [
        *(row.task, row.engine, str(row.clients), f"{row.requests_s:.1f}", f"{row.items_s:.1f}", f"{row.p50_ms:.1f}"),
        *(f"{row.p99_ms:.1f}", f"{row.fill:.0%}", f"{row.callers_per_pass:.1f}", share, times),
        f"{row.foreign_cpu:.0%}",
    ]
    return "| " + " | ".join(cells) + " |"


# --- the server ------------------------------------------------------------------------------------------------------


def serve(model: str, library: str) -> None:
    """The process of the server: says its port, ends with SIGTERM."""
    import uvicorn

    from sightline.server.app import create_app
    from sightline.server.services import Services
    from sightline.settings import Settings

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            print(self.servers[0].sockets[0].getsockname()[1], flush=True)

    settings = Settings(model=model, reranker="none", library=library)
    app = create_app(Services.open(settings))
    Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error")).run()


@contextmanager
def started(model: str, library: Path, threads: int) -> Iterator[str]:
    """The address of a server that is ready."""
    command = [sys.executable, "-m", "bench.serve", "--threads", str(threads), "--serve", model, str(library)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise SystemExit("the server did not start")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(START_S)


def ask(address: str, method: str, path: str, body: Any) -> Any:
    """One JSON request."""
    link = http.client.HTTPConnection(address, timeout=START_S)
    try:
        text = None if body is None else json.dumps(body).encode()
        link.request(method, path, text, {} if text is None else {"Content-Type": "application/json"})
        answer = link.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: the server answered {answer.status}: {content[:500]!r}")
        return json.loads(content) if content else None
    finally:
        link.close()


def embeddings(texts: Sequence[str]) -> dict[str, Any]:
    """A request for vectors, in the form that the OpenAI client asks for."""
    return {"input": list(texts), "encoding_format": "base64"}


def progress(address: str, job: str) -> tuple[bool, int]:
    """Whether an indexing job still runs, and how many files it has done."""
    state = ask(address, "GET", f"/v1/jobs/{job}", None)
    return state["status"] in ("waiting", "running"), int(state["indexed"])


def counters(address: str) -> dict[tuple[str, str], float]:
    """(lane, key) -> value of the counters of the models' queue."""
    link = http.client.HTTPConnection(address, timeout=START_S)
    link.request("GET", "/metrics")
    lines = link.getresponse().read().decode().splitlines()
    link.close()
    found: dict[tuple[str, str], float] = {}
    for lane in LANES:
        for key in ("passes", "callers", "cost", "budget"):
            start = f'sightline_engine_{key}_total{{lane="{lane}"}} '
            found[lane, key] = next(float(line[len(start) :]) for line in lines if line.startswith(start))
    return found


if __name__ == "__main__":
    main()
