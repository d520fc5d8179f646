"""Five hundred callers at once, at a server that takes twenty: who is taken is answered, the others are told when."""

import asyncio
import time

import httpx
import numpy as np

from sightline.server.app import create_app
from sightline.server.services import Services
from sightline.settings import Settings
from tests.cli.toys import Judge, Seeing

CALLERS = 500
TAKEN = 20


class Patient(Seeing):
    """Takes so long that the desk fills up."""

    def stream(self, items, **options):
        time.sleep(0.2)
        return super().stream(items, **options)


def test_five_hundred_callers_get_an_answer_or_a_time_to_come_back(serve, tmp_path):
    kept = Settings(library=str(tmp_path / "library.sightline"), serve_queue=TAKEN)
    services = Services.of(kept, Patient(), Judge())
    address = serve(create_app(services))

    async def call(client: httpx.AsyncClient, number: int) -> httpx.Response:
        # the toy hashes words, so each caller has a vector of its own
        return await client.post("/v1/embeddings", json={"input": f"caller{number}"})

    async def crowd() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=CALLERS)
        async with httpx.AsyncClient(base_url=address, timeout=300, limits=limits) as client:
            return list(await asyncio.gather(*(call(client, number) for number in range(CALLERS))))

    answers = asyncio.run(crowd())
    taken = [(number, answer) for number, answer in enumerate(answers) if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(taken) + len(refused) == CALLERS, {answer.status_code for answer in answers}
    assert len(taken) >= TAKEN
    assert refused, "the desk never filled up"
    for number, answer in taken:
        found = answer.json()["data"][0]["embedding"]
        assert np.allclose(found, Seeing().embed([f"caller{number}"])[0], atol=1e-6)
    for answer in refused:
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["error"]["type"] == "rate_limit_error"
    end = time.monotonic() + 60
    while services.desk.num_taken and time.monotonic() < end:
        time.sleep(0.01)
    assert services.desk.num_taken == 0
    assert httpx.post(f"{address}/v1/embeddings", json={"input": "after"}, timeout=60).status_code == 200
