"""Indexing in the background: what it tells, that it stops, and that it goes on."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi.testclient import TestClient

from sightline.search.events import FileDone
from sightline.server.jobs import NICE, Job, Jobs
from sightline.server.services import Services
from tests.cli.toys import Seeing
from tests.server.stock import error, fill, finished, opened, search

Stock = tuple[TestClient, Services]


@pytest.fixture
def stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stock]:
    with opened(tmp_path, monkeypatch) as found:
        yield found


def add(client: TestClient, *paths: Path, library: str = "default") -> dict[str, Any]:
    answer = client.post(f"/v1/libraries/{library}/items", json={"paths": [str(path) for path in paths]})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()["job"]
    return job


def many(folder: Path, number: int = 60) -> Path:
    folder.mkdir()
    for index in range(number):
        (folder / f"{index:03}.txt").write_text(f"note number {index}")
    return folder


class Gate(Seeing):
    """An embedder that says when work has come to it, and does it once it is opened."""

    def __init__(self) -> None:
        super().__init__(model="toy")
        self.come, self.open = threading.Event(), threading.Event()

    def stream(self, items: Iterable[Any], **options: Any) -> Iterator[Any]:
        for result in super().stream(items, **options):
            self.come.set()
            assert self.open.wait(60)
            yield result


def test_a_job_tells_what_became_of_every_file(stock: Stock, tmp_path: Path) -> None:
    client, _ = stock
    job = add(client, fill(tmp_path / "files"))
    assert job["library"] == "default" and job["kind"] == "add" and job["status"] in {"waiting", "running"}
    done = finished(client, job)
    assert (done["status"], done["total"], done["seen"]) == ("done", 8, 8)
    assert (done["indexed"], done["skipped"], done["unchanged"], done["deferred"]) == (7, 1, 0, 0)
    assert done["units"] == client.get("/v1/libraries/default").json()["rows"] > 7
    assert [(Path(one["path"]).name, bool(one["code"]), bool(one["detail"])) for one in done["errors"]] == [
        ("broken.png", True, True)
    ]
    assert done["started"] <= done["ended"] and done["current"] == ""
    assert client.get("/v1/jobs").json()["jobs"] == [done]
    failures = client.get("/v1/libraries/default/failures").json()
    assert [Path(one["path"]).name for one in failures["failures"]] == ["broken.png"] and failures["total"] == 1
    again = finished(client, add(client, tmp_path / "files"))
    assert (again["indexed"], again["unchanged"], again["units"]) == (0, 7, 0)


def test_events(stock: Stock, tmp_path: Path) -> None:
    client, _ = stock
    job = add(client, many(tmp_path / "files"))
    events: list[tuple[str, dict[str, Any]]] = []
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    assert [name for name, _ in events] == ["progress"] * (len(events) - 1) + ["end"]
    seen = [data["seen"] for _, data in events]
    assert seen == sorted(seen) and events[-1][1] == client.get(f"/v1/jobs/{job['id']}").json()
    assert events[-1][1]["status"] == "done" and events[-1][1]["indexed"] == 60
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as answer:
        assert [line for line in answer.iter_lines() if line.startswith("event")] == ["event: end"]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate) -> Iterator[TestClient]:
    with opened(tmp_path, monkeypatch, bulk=gate) as (client, _):
        yield client
        gate.open.set()


def test_cancel_and_go_on(gated: TestClient, gate: Gate, tmp_path: Path) -> None:
    client = gated
    folder = many(tmp_path / "files")
    job = add(client, folder)
    assert gate.come.wait(60)
    assert client.get(f"/v1/jobs/{job['id']}").json()["status"] == "running"
    assert client.delete(f"/v1/jobs/{job['id']}").status_code == 200
    gate.open.set()
    ended = finished(client, job)
    assert ended["status"] == "cancelled"
    assert ended["seen"] == ended["indexed"] + ended["unchanged"] + ended["skipped"] + ended["deferred"]
    rest = finished(client, add(client, folder))
    assert rest["status"] == "done" and rest["indexed"] + rest["unchanged"] == 60
    assert client.get("/v1/libraries/default").json()["rows"] == 60, "nothing twice, nothing lost"
    assert client.delete(f"/v1/jobs/{job['id']}").json()["status"] == "cancelled", "an end stays the end"


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own here")
def test_a_job_and_its_decoders_stand_behind_queries(gated: TestClient, gate: Gate, tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    job = add(gated, fill(tmp_path / "files"))
    assert gate.come.wait(60)

    def priorities(name: str) -> list[int]:
        threads = [one for one in threading.enumerate() if one.name.startswith(name) and one.native_id]
        return [os.getpriority(os.PRIO_PROCESS, one.native_id or 0) - mine for one in threads]

    mine = os.getpriority(os.PRIO_PROCESS, 0)
    decoders = [child.nice() - mine for child in set(psutil.Process().children()) - before]
    assert priorities("sightline-job") == [NICE] and set(priorities("sightline-reading")) == {NICE}
    assert decoders and set(decoders) == {NICE}
    gate.open.set()
    finished(gated, job)
    search(gated, "sea")
    assert set(priorities("sightline-request")) == {0}


def test_one_at_a_time_for_each_library(gated: TestClient, gate: Gate, tmp_path: Path) -> None:
    client = gated
    client.post("/v1/libraries", json={"id": "other"})
    first = add(client, many(tmp_path / "a", 3))
    assert gate.come.wait(60)
    second, third = add(client, many(tmp_path / "b", 3)), add(client, many(tmp_path / "c", 3))
    status = lambda job: client.get(f"/v1/jobs/{job['id']}").json()["status"]  # noqa: E731
    assert (status(first), status(second), status(third)) == ("running", "waiting", "waiting")
    assert client.delete(f"/v1/jobs/{third['id']}").json()["status"] == "cancelled", "what waits ends at once"
    elsewhere = add(client, many(tmp_path / "d", 3), library="other")
    end = time.monotonic() + 60
    while status(elsewhere) != "running" and time.monotonic() < end:
        time.sleep(0.02)
    assert status(elsewhere) == "running", "another library does not wait"
    # while it is written the library can be searched, but not deleted or changed
    assert search(client, "note") == []
    assert error(client.delete("/v1/libraries/other"))[:2] == (409, "busy")
    assert error(client.request("DELETE", "/v1/libraries/default/items", json={"paths": ["/x"]}))[:2] == (409, "busy")
    gate.open.set()
    assert [finished(client, job)["status"] for job in (first, second, elsewhere)] == ["done"] * 3
    assert client.get("/v1/libraries/default").json()["files"] == 6
    assert client.delete("/v1/libraries/other").status_code == 200


def test_the_end_of_the_server_is_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = many(tmp_path / "files")
    gate = Gate()
    with opened(tmp_path, monkeypatch, bulk=gate) as (client, services):
        running, waiting = add(client, folder), add(client, folder)
        assert gate.come.wait(60)
        gate.open.set()
        services.jobs.close()
        assert services.jobs.get(running["id"]).look().status in {"cancelled", "done"}
        assert services.jobs.get(waiting["id"]).look().status == "cancelled"
        assert error(client.post("/v1/libraries/default/items", json={"paths": [str(folder)]}))[0] == 503
    with opened(tmp_path, monkeypatch) as (client, _):
        assert client.get("/v1/jobs").json() == {"jobs": []}
        assert finished(client, add(client, folder))["status"] == "done"
        assert client.get("/v1/libraries/default").json()["rows"] == 60


def test_another_writer_fails_the_job_and_not_the_server(stock: Stock, tmp_path: Path) -> None:
    from sightline.store.lock import WriterLock

    client, services = stock
    services.libraries.open("default")
    with WriterLock(services.libraries.index_folder("default")):
        failed = finished(client, add(client, many(tmp_path / "files", 2)))
    assert (failed["status"], [(one["path"], one["code"]) for one in failed["errors"]]) == ("failed", [("", "locked")])
    assert finished(client, add(client, tmp_path / "files"))["status"] == "done"


def test_a_fault_of_ours_is_one_fixed_sentence(stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret detail of a library at 0x7f")

    client, _ = stock
    monkeypatch.setattr("sightline.library.Library.add", broken)
    failed = finished(client, add(client, many(tmp_path / "files", 2)))
    assert failed["status"] == "failed" and "secret" not in json.dumps(failed)


def test_only_the_last_jobs_are_kept(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    client, services = stock
    monkeypatch.setattr(Jobs, "_run", lambda self, job: job.end("done"))
    for _ in range(130):
        last = services.jobs.submit("default", ["/x"])
        while not last.ended:
            time.sleep(0.001)
    jobs = client.get("/v1/jobs").json()["jobs"]
    assert len(jobs) == 100 and jobs[0]["id"] == last.id
    assert error(client.get("/v1/jobs/none"))[:2] == (404, "no_job")
    assert error(client.get("/v1/jobs/none/events"))[0] == 404
    assert error(client.delete("/v1/jobs/none"))[0] == 404


def test_too_many_waiting_jobs_are_refused(stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, services = stock
    gate = threading.Event()
    monkeypatch.setattr(Jobs, "_run", lambda self, job: (gate.wait(60), job.end("done")))
    for _ in range(51):
        services.jobs.submit("default", ["/x"])
        time.sleep(0.002)
    end = time.monotonic() + 60
    while sum(not job.ended for job in services.jobs.all()) < 51 and time.monotonic() < end:
        time.sleep(0.01)
    services.jobs._waiting["default"].append(Job("default", ["/x"], None))
    answer = client.post("/v1/libraries/default/items", json={"paths": [str(tmp_path)]})
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0
    gate.set()


def test_failures_of_a_job_are_bounded() -> None:
    from sightline.search.events import FileSkipped

    job = Job("default", ["/x"], None)
    for number in range(1_000):
        job.hear(FileSkipped(path=f"/{number}", code="corrupt", detail="broken"))
    job.hear(FileDone(path="/a", units=3, reused=0))
    shape = job.look()
    assert (len(shape.errors), shape.skipped, shape.indexed, shape.units, shape.seen) == (100, 1000, 1, 3, 1001)


class Panicking(Seeing):
    """An embedder that panics once, as libraries in Rust do: with what is no ``Exception``."""

    def __init__(self) -> None:
        super().__init__(model="toy")
        self.panics = 1

    def stream(self, items: Iterable[Any], **options: Any) -> Iterator[Any]:
        if self.panics:
            self.panics -= 1
            raise BaseException("no caller may read this")
        return super().stream(items, **options)


def test_a_panic_fails_its_job_and_the_next_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, monkeypatch, bulk=Panicking()) as (client, _):
        folder = many(tmp_path / "files", 2)
        failed = finished(client, add(client, folder))
        assert (failed["status"], failed["errors"][-1]["code"]) == ("failed", "failed")
        assert "no caller" not in failed["errors"][-1]["detail"]
        assert finished(client, add(client, folder))["status"] == "done"
