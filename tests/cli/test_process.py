"""The program as a process: start-up, Ctrl-C, pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sightline

TOYS = Path(__file__).parent
DRIVER = (
    "import signal, sys; sys.path.insert(0, {toys!r}); import toys; from sightline.cli import main; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); toys.install(toys.{embedder}); main()"
)
"""A runner in the background may have switched Ctrl-C off for all that it starts."""
HEAVY = "{'torch', 'lancedb', 'numpy', 'PIL', 'av', 'pyarrow'} & set(sys.modules)"


def command(*arguments: object, embedder: str = "Seeing") -> list[str]:
    code = DRIVER.format(toys=str(TOYS), embedder=embedder)
    return [sys.executable, "-c", code, *map(str, arguments)]


def test_python_m_sightline() -> None:
    done = subprocess.run([sys.executable, "-m", "sightline", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"sightline {sightline.__version__}\n")


def test_help_loads_nothing_heavy_and_is_quick() -> None:
    code = f"import sys\nfrom sightline.cli.app import app\ntry:\n app(['--help'])\nexcept SystemExit:\n print({HEAVY})"
    times = []
    for _ in range(3):
        started_s = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        times.append(time.monotonic() - started_s)
        assert done.stdout.strip().endswith("set()"), done.stdout + done.stderr
    assert min(times) < 2.0  # 0.15 s on a quiet machine


def test_ctrl_c_stops_cleanly_and_the_next_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:02}.txt").write_text(f"note number {number} of a bicycle trip")
    process = subprocess.Popen(
        command("index", folder, embedder="Slow"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "embedding\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "stopped: " in out and "The next run goes on from here." in out
    assert "Traceback" not in err
    again = subprocess.run(command("index", folder), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "done, 0 skipped" in again.stdout
    found = subprocess.run(command("search", "bicycle", "-k", "100"), capture_output=True, text=True, check=False)
    assert len(found.stdout.splitlines()) == 61


@pytest.mark.skipif(os.name == "nt", reason="pipes end otherwise")
def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a bicycle")
    process = subprocess.Popen(command("settings", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
