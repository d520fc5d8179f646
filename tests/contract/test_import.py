"""Importing the package does nothing: no heavy library, no environment, no file."""

import subprocess
import sys

PROBE = """
import os, sys
class Closed(dict):
    def __getitem__(self, key): raise AssertionError(f"environment read at import: {key}")
    def get(self, key, default=None): raise AssertionError(f"environment read at import: {key}")
real = os.environ
before = set(sys.modules)
import numpy  # what the ground floor may load
os.environ = Closed()
import sightline, sightline.types, sightline.errors, sightline.protocols, sightline.settings
os.environ = real
sightline.Item(text="x")
heavy = {"torch", "lancedb", "lance", "ray", "transformers", "PIL", "av", "pypdfium2", "pyarrow", "tokenizers", "typer", "rich"}
print(",".join(sorted(heavy & (set(sys.modules) - before))))
"""


def test_import_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
