"""The description of the interface is that of the program."""

import runpy
from pathlib import Path

import sightline

DOCS = Path(sightline.__file__).parents[1] / "docs"


def test_the_copy_in_the_docs_is_what_a_server_says():
    made = runpy.run_path(str(DOCS / "make_openapi.py"))["text"]()
    assert (DOCS / "openapi.json").read_text(encoding="utf-8") == made, "run: python docs/make_openapi.py"


def test_every_operation_tells_the_one_shape_of_its_errors(client):
    described = client.get("/openapi.json").json()
    shape = described["components"]["schemas"]["ErrorAnswer"]
    assert shape["properties"]["error"] == {"$ref": "#/components/schemas/ErrorObject"}
    assert described["components"]["schemas"]["ErrorObject"]["required"] == ["message", "type", "param", "code"]
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            told = operation["responses"]
            assert "422" not in told, (path, method)
            for status in ("400", "401", "404", "413", "429"):
                assert told[status] == {"$ref": f"#/components/responses/{status}"}, (path, method, status)
            assert ("security" in operation) == (path != "/health"), (path, method)
    for answer in described["components"]["responses"].values():
        assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}
