"""What the Dockerfile, the compose file and the pages about the server refer to exists."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sightline.settings import Settings, env_name

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
KNOWN = {env_name(f.name) for f in fields(Settings)}


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of every instruction, with continued lines joined."""
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M)).splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines if line.strip()]


def stage(name: str) -> list[tuple[str, str]]:
    """Instructions of one stage."""
    found: list[tuple[str, str]] = []
    inside = False
    for word, rest in instructions():
        if word == "FROM":
            inside = rest.endswith(f" AS {name}")
        elif inside:
            found.append((word, rest))
    return found


def test_everything_copied_exists_and_is_let_into_the_build() -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    for name in [one for several in copied for one in several]:
        assert (ROOT / name).exists(), name
        assert name.removeprefix("./") in let_in, f"{name} is kept out by .dockerignore"


def test_the_extras_and_the_command_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r"'\.\[(.*?)\]'", DOCKERFILE)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    (entry,) = [json.loads(rest) for word, rest in stage("run") if word == "ENTRYPOINT"]
    assert set(entry) <= set(project["scripts"])


def test_the_command_is_one_of_the_program() -> None:
    from typer.main import get_command

    from sightline.cli.app import app

    (command,) = [json.loads(rest) for word, rest in stage("run") if word == "CMD"]
    known = get_command(app).commands  # type: ignore[attr-defined]
    assert command[0] in known


def test_the_container_runs_without_rights_and_keeps_its_data_in_a_volume() -> None:
    run = dict(stage("run"))
    words = [word for word, _ in stage("run")]
    assert run["USER"] == "sightline" and words.index("USER") < words.index("ENTRYPOINT")
    assert run["VOLUME"] == "/data"
    environment = dict(pair.split("=", 1) for pair in shlex.split(run["ENV"]))
    assert environment["SIGHTLINE_LIBRARY"].startswith("/data/") and environment["XDG_DATA_HOME"] == "/data"
    assert {name for name in environment if name.startswith("SIGHTLINE_")} <= KNOWN
    assert environment["SIGHTLINE_SERVE_PORT"] == run["EXPOSE"]
    assert not [name for name in environment if "KEY" in name], "no key in an image"


def test_the_volume_is_closed_to_others_and_no_installer_is_left() -> None:
    made = [rest for word, rest in stage("run") if word == "RUN"]
    assert any(re.search(r"install -d -m 0700 -o sightline -g sightline /data( |$)", rest) for rest in made)
    assert not any("--create-home" in rest.replace("--no-create-home", "") for rest in made), "no dot files in /data"
    assert [rest for word, rest in stage("build") if word == "RUN"][-1].endswith("pip uninstall -y pip")


def test_the_key_of_the_compose_file_is_not_committed(compose) -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for service in compose["services"].values():
        assert f"/{service['env_file'][0]['path']}" in ignored


def test_the_settings_of_the_container_need_a_key() -> None:
    from sightline.errors import ConfigError
    from sightline.server.guard import check_config

    run = dict(stage("run"))
    environment = dict(pair.split("=", 1) for pair in shlex.split(run["ENV"]))
    settings = Settings.from_env({name: text for name, text in environment.items() if name.startswith("SIGHTLINE_")})
    with pytest.raises(ConfigError):
        check_config(settings)
    check_config(settings.replace(serve_keys="a-key-of-thirty-two-characters-or-so"))


def test_health_is_asked_where_it_is_answered_without_a_key() -> None:
    (check,) = [rest for word, rest in stage("run") if word == "HEALTHCHECK"]
    assert "http://127.0.0.1:8077/health" in check
    command = json.loads(check[check.index("[") :])
    compile(command[2], "health check", "exec")


def test_packages_come_from_public_places_only() -> None:
    hosts = set(re.findall(r"https?://([^/\s\"']+)", DOCKERFILE + COMPOSE))
    assert hosts <= {"download.pytorch.org", "127.0.0.1:8077"}


@pytest.fixture(scope="module")
def compose() -> Any:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.safe_load(COMPOSE)


def test_compose_has_a_profile_for_each_kind_of_machine(compose) -> None:
    services = compose["services"]
    assert {name: one["profiles"] for name, one in services.items()} == {"cpu": ["cpu"], "cuda": ["cuda"]}
    arguments = set(re.findall(r"^ARG (\w+)", DOCKERFILE, flags=re.M))
    for service in services.values():
        assert service["ports"] == ["127.0.0.1:8077:8077"], "this machine only, unless the owner opens it"
        assert set(service["build"]["args"]) <= arguments
        assert set(service.get("environment", {})) <= KNOWN
        assert service["init"], "a start can be stopped before the program handles signals"
        assert service["env_file"][0]["required"], "no server without a key"
        assert service["volumes"][0].split(":")[0] in compose["volumes"]
        assert not [name for name in service.get("environment", {}) if "KEY" in name]


def test_every_setting_on_the_page_exists() -> None:
    assert set(re.findall(r"SIGHTLINE_[A-Z_]+", PAGE)) <= KNOWN


def test_every_path_on_the_page_is_a_route() -> None:
    paths = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))["paths"]
    patterns = [re.compile(re.sub(r"\{[^/]+\}", "[^/]+", path)) for path in paths]
    used = set(re.findall(r"http://127\.0\.0\.1:8077(/v\d/[^\s?'\"`)]*)", PAGE))
    assert len(used) >= 6
    assert [path for path in used if not any(one.fullmatch(path) for one in patterns)] == []
