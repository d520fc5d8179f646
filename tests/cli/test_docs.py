"""docs/cli.md is what the program says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run, load_file

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_up_to_date() -> None:
    make = load_file("sightline_make_cli", DOCS / "make_cli.py")
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == make.page(), "run: python docs/make_cli.py"


COMMANDS = load_file("sightline_make_cli_names", DOCS / "make_cli.py").commands()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_of_its_own(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert f"sightline {' '.join(command)}" in result.stdout and "--help" in result.stdout
