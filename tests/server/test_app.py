"""What every answer of the server has in common."""


def test_errors_have_one_shape(client):
    answer = client.get("/v1/nothing")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": {"message": "there is nothing here", "type": "not_found_error", "param": None, "code": None}
    }
