"""Whatever schemathesis makes of the description: no fault of the server, and every answer as described.

Fifty examples of each operation, and chains of them along the links of the description: what one answer made is read,
changed and deleted by the next requests. ``SCHEMA_EXAMPLES=1000 pytest tests/server/test_schema.py`` makes more.
"""

import json
import os
import time

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi import checks

from sightline.server.app import create_app
from sightline.server.services import Services
from sightline.settings import Settings
from tests.cli.toys import Judge, Seeing
from tests.server.conftest import serving
from tests.server.stock import index
from tests.server.test_openapi import DOCS

load_all_checks()
described = json.loads((DOCS / "openapi.json").read_text(encoding="utf-8"))
for operations in described["paths"].values():
    for operation in operations.values():
        operation.pop("security", None)  # this server asks for no key; test_guard.py tries every route without one
schema = schemathesis.openapi.from_dict(described)

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server around toys with one text in its library, which may index nothing but an empty folder."""
    folder = tmp_path_factory.mktemp("schema")
    (folder / "roots").mkdir()
    (folder / "files").mkdir()
    (folder / "files" / "bike.txt").write_text("A red bicycle leans on the wall of the old mill.", encoding="utf-8")
    index(folder / "library.sightline", folder / "files", model=Seeing().card.model)
    kept = Settings(library=str(folder / "library.sightline"), serve_roots=str(folder / "roots"))
    with serving() as start:
        yield start(create_app(Services.of(kept, Seeing(), Judge())))


@schema.parametrize()
@settings(
    max_examples=int(os.environ.get("SCHEMA_EXAMPLES", "50")),
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_described(case, address):
    answer = case.call(base_url=address, timeout=300)
    case.validate_response(answer, checks=CHECKS)


def test_chains_of_requests_are_as_described(address):
    class Chains(schema.as_state_machine()):  # type: ignore[misc]  # made of the description
        def setup(self):
            """Each chain begins with the one library, or what a chain can do would hang on those before it."""
            with httpx.Client(base_url=address, timeout=300) as client:
                for library in client.get("/v1/libraries").json()["libraries"]:
                    while (
                        library["id"] != "default"
                        and client.delete(f"/v1/libraries/{library['id']}").status_code == 409
                    ):
                        time.sleep(0.05)  # a job of it runs

        def get_call_kwargs(self, case):
            return {"base_url": address, "timeout": 300}

        def validate_response(self, response, case, additional_checks=(), **kwargs):
            seen.add((case.method.lower(), case.path, response.status_code))
            case.validate_response(response, checks=[*CHECKS, checks.ensure_resource_availability])

    seen: set[tuple[str, str, int]] = set()
    Chains.run(
        settings=settings(
            max_examples=int(os.environ.get("SCHEMA_CHAINS", "40")),
            stateful_step_count=6,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
    )
    # where chains lead depends on what runs meanwhile; but they have led somewhere
    assert ("post", "/v1/libraries", 201) in seen
    assert any(path.startswith("/v1/libraries/{id}") and status == 200 for _, path, status in seen)


def test_a_library_is_made_read_and_deleted_as_described(address):
    path = "/v1/libraries/{id}"
    steps = [
        (schema["/v1/libraries"]["POST"].Case(body={"id": "short-lived"}, media_type="application/json"), 201),
        (schema[path]["GET"].Case(path_parameters={"id": "short-lived"}), 200),
        (schema[path]["DELETE"].Case(path_parameters={"id": "short-lived"}), 200),
        (schema[path]["GET"].Case(path_parameters={"id": "short-lived"}), 404),
    ]
    for case, status in steps:
        answer = case.call(base_url=address, timeout=300)
        case.validate_response(answer, checks=CHECKS)
        assert answer.status_code == status, answer.text


def test_events_of_a_job_are_as_described(address):
    with httpx.Client(base_url=address, timeout=300) as client:
        files = {"files": ("a.txt", b"words", "text/plain")}
        job = client.post("/v1/libraries/default/items", files=files).raise_for_status().json()["job"]["id"]
    case = schema["/v1/jobs/{job}/events"]["GET"].Case(path_parameters={"job": job})
    answer = case.call(base_url=address, timeout=300)
    case.validate_response(answer, checks=CHECKS)
    assert answer.status_code == 200 and b"event: end" in answer.content
