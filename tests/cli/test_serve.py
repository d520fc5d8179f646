"""``sightline serve`` and ``sightline mcp`` as a person starts and stops them."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from typer.testing import CliRunner

from sightline.cli.app import app

KEY = "a-key-of-more-than-sixteen-letters"


def ask(url, body=None, key=None):
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return json.load(answer)


@pytest.fixture
def started(tmp_path):
    running = []

    def start(*words):
        command = [sys.executable, "-m", "sightline", "serve", "--port", "0", "--device", "cpu", *map(str, words)]
        env = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data")}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
        running.append(process)
        said: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if "http://" in line:
                return process, line.split()[3]
        raise AssertionError("".join(said))

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_one_command_from_files_to_answers_and_a_clean_end(tmp_path, started):
    files = tmp_path / "files"
    files.mkdir()
    (files / "bees.txt").write_text("Bees leave the hive in spring when the willow blooms.")
    (files / "bread.txt").write_text("Knead the dough and let it rise overnight.")
    (tmp_path / "keys").write_text(f"# of the tests\n\n{KEY}\n")
    process, url = started(files, "--library", tmp_path / "x.sightline", "--key-file", tmp_path / "keys")
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        ask(f"{url}/v1/jobs")
    refused.value.close()
    end = time.monotonic() + 300
    while ask(f"{url}/v1/jobs", key=KEY)["jobs"][0]["status"] in ("waiting", "running"):
        assert time.monotonic() < end
        time.sleep(0.2)
    (job,) = ask(f"{url}/v1/jobs", key=KEY)["jobs"]
    assert (job["status"], job["indexed"]) == ("done", 2)
    found = ask(f"{url}/v1/search", {"text": "willow and bees"}, key=KEY)
    assert found["hits"][0]["path"].endswith("bees.txt")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0


def test_it_can_be_stopped_while_the_models_are_loaded(tmp_path, monkeypatch):
    """As process 1 of a container it gets only the signals that it handles: without, the stop waits and then kills."""
    from sightline.server.services import Services

    def told_to_stop(*_, **__):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Services, "open", told_to_stop)
    before = signal.getsignal(signal.SIGTERM)
    try:
        done = CliRunner().invoke(app, ["serve", "--library", str(tmp_path / "x.sightline")])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done.exit_code == 128 + signal.SIGTERM


def test_an_address_that_others_reach_needs_a_key(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0", "--library", str(tmp_path / "x.sightline")])
    assert done.exit_code == 2 and "serve_keys" in done.output
    (tmp_path / "keys").write_text("# none yet\n")
    done = CliRunner().invoke(app, ["serve", "--key-file", str(tmp_path / "keys")])
    assert done.exit_code == 2 and "no key" in done.output


def test_keys_are_not_shown(monkeypatch):
    monkeypatch.setenv("SIGHTLINE_SERVE_KEYS", KEY)
    for words in (["settings"], ["settings", "--json"]):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0 and "serve_keys" in done.output.lower() and KEY not in done.output


def test_mcp_without_an_index_says_how_to_make_one(tmp_path):
    done = CliRunner().invoke(app, ["mcp", "--library", str(tmp_path / "none")])
    assert done.exit_code == 5 and "sightline index" in done.output
