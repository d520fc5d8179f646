"""Blocking work beside the event loop: bounded, dropped when nobody waits, and ended in order."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import FastAPI, Request

from sightline.engine.turns import giving_up
from sightline.errors import StoppedError
from sightline.server import faults
from sightline.server.desk import THREADS, Desk
from sightline.server.faults import Fault

PATIENCE_S = 120


class Caller:
    """A request that goes away when it is told to."""

    def __init__(self):
        self.gone = False

    async def is_disconnected(self):
        return self.gone


class Stuck:
    """Work that ends when it is let go, or when its caller has gone."""

    def __init__(self):
        self.begun, self.go, self.given_up = threading.Event(), threading.Event(), threading.Event()

    def __call__(self):
        self.begun.set()
        gone = giving_up.get()
        assert gone is not None
        end = time.monotonic() + PATIENCE_S
        while not self.go.is_set():
            assert time.monotonic() < end
            if gone.wait(0.01):
                self.given_up.set()
                raise StoppedError("the caller has gone")
        return "done"


async def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        await asyncio.sleep(0.005)


def run(main, desk):
    async def whole():
        async with asyncio.timeout(PATIENCE_S):
            await main()

    try:
        asyncio.run(whole())
    finally:
        desk.close()


def test_results_and_errors_come_back():
    desk = Desk(8, PATIENCE_S)

    async def main():
        assert await desk.run(Caller(), lambda: threading.current_thread().name.startswith("sightline-request"))
        with pytest.raises(ZeroDivisionError):
            await desk.run(Caller(), lambda: 1 / 0)
        await until(lambda: desk.num_taken == 0)
        assert desk.counts().answered == 2

    run(main, desk)


def test_a_full_desk_refuses_at_once_and_says_when_to_come_back():
    desk, stuck = Desk(3, PATIENCE_S), Stuck()

    async def main():
        taken = [asyncio.create_task(desk.run(Caller(), stuck)) for _ in range(3)]
        await until(lambda: desk.counts().running == 3)
        for _ in range(5):
            with pytest.raises(Fault) as caught:
                await desk.run(Caller(), stuck)
            assert caught.value.status == 429 and 1 <= (caught.value.retry_s or 0) <= 30
        stuck.go.set()
        assert await asyncio.gather(*taken) == ["done"] * 3
        await until(lambda: desk.num_taken == 0)
        assert await desk.run(Caller(), lambda: "room again") == "room again"
        assert desk.counts().refused == 5

    run(main, desk)


def test_more_than_there_are_threads_wait_their_turn():
    desk, stuck = Desk(200, PATIENCE_S), Stuck()

    async def main():
        tasks = [asyncio.create_task(desk.run(Caller(), stuck)) for _ in range(THREADS + 20)]
        await until(lambda: desk.counts().running == THREADS)
        assert desk.num_taken == THREADS + 20
        stuck.go.set()
        assert await asyncio.gather(*tasks) == ["done"] * (THREADS + 20)

    run(main, desk)


def test_a_thousand_callers_who_go_away_leave_nothing():
    desk = Desk(100, PATIENCE_S)

    async def ask(caller):
        with pytest.raises(Fault) as caught:
            await desk.run(caller, Stuck())
        assert caught.value.status == 499

    async def main():
        for _ in range(10):
            callers = [Caller() for _ in range(100)]
            tasks = [asyncio.create_task(ask(caller)) for caller in callers]
            await until(lambda: desk.num_taken == 100)
            for caller in callers:
                caller.gone = True
            await asyncio.gather(*tasks)
            await until(lambda: desk.num_taken == 0)
        counts = desk.counts()
        assert (counts.gone, counts.answered, counts.running) == (1_000, 0, 0)
        assert not desk._gone

    run(main, desk)


def test_a_place_is_free_only_when_its_thread_has_ended():
    """Or callers who come and go would pile up work without bound."""
    desk, end = Desk(1, PATIENCE_S), threading.Event()

    async def main():
        caller = Caller()
        task = asyncio.create_task(desk.run(caller, lambda: end.wait(PATIENCE_S)))
        await until(lambda: desk.counts().running == 1)
        caller.gone = True
        with pytest.raises(Fault):
            await task
        with pytest.raises(Fault) as caught:
            await desk.run(Caller(), lambda: None)
        assert caught.value.status == 429
        end.set()
        await until(lambda: desk.num_taken == 0)
        assert await desk.run(Caller(), lambda: "room") == "room"

    run(main, desk)


def test_what_takes_too_long_is_504_and_given_up():
    desk, stuck = Desk(8, 0.05), Stuck()

    async def main():
        with pytest.raises(Fault) as caught:
            await desk.run(Caller(), stuck)
        assert caught.value.status == 504
        await until(lambda: desk.num_taken == 0)
        assert stuck.given_up.is_set() and desk.counts().late == 1

    run(main, desk)


def test_a_cancelled_task_gives_its_work_up():
    desk, stuck = Desk(8, PATIENCE_S), Stuck()

    async def main():
        task = asyncio.create_task(desk.run(Caller(), stuck))
        await until(stuck.begun.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: desk.num_taken == 0)
        assert stuck.given_up.is_set()

    run(main, desk)


def test_each_caller_is_given_up_alone():
    desk, first, second = Desk(8, PATIENCE_S), Stuck(), Stuck()

    async def main():
        leaving = Caller()
        tasks = [asyncio.create_task(desk.run(leaving, first)), asyncio.create_task(desk.run(Caller(), second))]
        await until(lambda: first.begun.is_set() and second.begun.is_set())
        leaving.gone = True
        with pytest.raises(Fault):
            await tasks[0]
        second.go.set()
        assert await tasks[1] == "done" and not second.given_up.is_set()

    run(main, desk)


def test_a_stopping_desk_finishes_what_runs_and_refuses_the_rest():
    desk, stuck = Desk(200, PATIENCE_S, stop_s=PATIENCE_S), Stuck()

    async def main():
        running = asyncio.create_task(desk.run(Caller(), stuck))
        await until(stuck.begun.is_set)
        stopping = asyncio.create_task(desk.stop())
        await until(lambda: desk.stopping)
        with pytest.raises(Fault) as caught:
            await desk.run(Caller(), lambda: None)
        assert caught.value.status == 503 and caught.value.retry_s
        assert not stopping.done()
        stuck.go.set()
        assert await running == "done"
        await stopping

    run(main, desk)


def test_what_does_not_end_in_time_is_given_up_when_stopping():
    desk, stuck = Desk(200, PATIENCE_S, stop_s=0.05), Stuck()

    async def main():
        tasks = [asyncio.create_task(desk.run(Caller(), stuck)) for _ in range(THREADS + 5)]
        await until(lambda: desk.counts().running == THREADS)
        await desk.stop()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        # those that ran are told to give up, those that waited for a thread never run
        assert sum(isinstance(error, StoppedError) for error in found) == THREADS
        assert sum(isinstance(error, Fault) and error.status == 503 for error in found) == 5
        await until(lambda: desk.num_taken == 0)

    run(main, desk)


# --- through a socket ------------------------------------------------------------------------------------------------


def application(desk, work):
    app = FastAPI()
    faults.install(app)

    @app.post("/work")
    async def post(request: Request) -> str:
        await request.body()
        return str(await desk.run(request, work))

    return app


def test_a_client_that_hangs_up_is_noticed(serve):
    desk, stuck = Desk(8, PATIENCE_S), Stuck()
    address = serve(application(desk, stuck))
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(b"POST /work HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        assert stuck.begun.wait(PATIENCE_S)
    assert stuck.given_up.wait(PATIENCE_S)
    stuck.go.set()
    assert httpx.post(f"{address}/work", timeout=PATIENCE_S).json() == "done"
    desk.close()


def test_many_clients_see_only_answers_and_429_with_retry_after(serve):
    desk = Desk(10, PATIENCE_S)

    def work():
        time.sleep(0.02)
        return "done"

    address = serve(application(desk, work))
    with httpx.Client(timeout=PATIENCE_S, limits=httpx.Limits(max_connections=100)) as client:
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(lambda _: client.post(f"{address}/work"), range(200)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) <= {200, 429} and statuses.count(200) >= 10
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers if answer.status_code == 429)
        assert client.post(f"{address}/work").status_code == 200
    desk.close()


def test_a_panic_or_an_exit_in_the_work_ends_that_request_alone(serve):
    """Libraries in Rust raise what is no ``Exception``; asyncio ends the whole loop at a ``SystemExit``."""
    desk, ends = Desk(8, PATIENCE_S), [SystemExit(3), BaseException("a panic")]

    def work():
        if ends:
            raise ends.pop(0)
        return "done"

    address = serve(application(desk, work))
    for _ in range(2):
        answer = httpx.post(f"{address}/work", timeout=PATIENCE_S)
        assert (answer.status_code, answer.json()["error"]["message"]) == (500, faults.MESSAGES[500])
    assert httpx.post(f"{address}/work", timeout=PATIENCE_S).json() == "done"
    desk.close()


TERMINATED = """
import sys, threading, time, uvicorn
from fastapi import FastAPI, Request
from sightline.server.app import create_app
from sightline.server.services import Services
from sightline.settings import Settings
from sightline.testing import ToyEmbedder

services = Services.of(Settings(library=sys.argv[1], serve_stop_s=60), ToyEmbedder())
app = create_app(services)

def work():
    print("begun", flush=True)
    time.sleep(1.5)
    return "done"

@app.post("/work")
async def post(request: Request) -> str:
    await request.body()
    return await services.desk.run(request, work)

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)

Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=60)).run()
print("stopped", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_a_terminated_server_answers_what_it_has_begun(tmp_path):
    command = [sys.executable, "-c", TERMINATED, str(tmp_path / "library.sightline")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, ThreadPoolExecutor(1) as pool:
        assert process.stdout is not None
        address = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        answer = pool.submit(httpx.post, f"{address}/work", timeout=PATIENCE_S)
        assert process.stdout.readline().strip() == "begun"
        process.send_signal(signal.SIGTERM)
        assert answer.result(PATIENCE_S).json() == "done"
        assert process.wait(PATIENCE_S) in (0, -signal.SIGTERM)
