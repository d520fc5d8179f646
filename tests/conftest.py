"""What every test may rely on: a scrubbed environment, and where the shared data lie when they are there."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub library is imported: no test may download

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a runner in the background switches Ctrl-C off for all it starts; some tests press it in their children
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


# a busy machine is no fault of a test
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path_factory):
    """No setting of the person who runs the tests reaches them, and nothing is written to their home."""
    for name in list(os.environ):
        if name.startswith("SIGHTLINE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "data"))


@pytest.fixture(scope="session")
def shared():
    """The folder of golden outputs and real configurations; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared is not here: it holds golden outputs that are not part of the project")
    return SHARED
