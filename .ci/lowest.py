"""The lowest versions that pyproject.toml allows: do they install, and does the product work on them?

    python .ci/lowest.py FOLDER [--take torch …]

Makes a virtual environment in FOLDER with every dependency of the package and of ``serve`` at its floor, and runs a
smoke suite in it. ``--take`` takes a package at its version in constraints.txt, where its floor is too large to fetch.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("serve",)
TOOLS = ("pytest", "pytest-timeout", "hypothesis", "httpx", "psutil")
"""What the suite needs itself, at any version."""
SUITE = (
    *(
        "tests/test_first.py",
        "tests/test_embed.py",
        "tests/test_rerank.py",
        "tests/test_library.py",
        "tests/test_types.py",
    ),
    *(
        "tests/model/test_weights.py",
        "tests/model/test_hostile.py",
        "tests/media/test_image.py",
        "tests/media/test_pdf.py",
    ),
    *(
        "tests/media/test_video.py",
        "tests/media/test_pool.py",
        "tests/store/test_agree.py",
        "tests/store/test_schema.py",
    ),
    *("tests/search/test_ingest.py", "tests/server/test_search.py", "tests/server/test_embeddings.py"),
)
FLOOR = re.compile(r"(?P<name>[\w.-]+)(\[[\w,]+\])?\s*(>=|==)\s*(?P<version>[\w.]+)")


def floors(text: str) -> dict[str, str]:
    """Lowest version of each dependency of the package and of ``EXTRAS``; every one has to have one."""
    project = tomllib.loads(text)["project"]
    wanted = [*project["dependencies"], *(one for extra in EXTRAS for one in project["optional-dependencies"][extra])]
    found: dict[str, str] = {}
    for requirement in wanted:
        match = FLOOR.match(requirement)
        if match is None:
            raise SystemExit(f"{requirement} has no floor")
        found[match["name"]] = match["version"]
    return found


def pins(text: str) -> dict[str, str]:
    """Versions of constraints.txt."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return dict(line.split("==") for line in lines if line)


def main() -> int:
    """Make the environment, run the suite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--take", nargs="*", default=[], help="packages at the version of constraints.txt")
    given = parser.parse_args()
    wanted = floors((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    wanted |= {name: pinned[name] for name in given.take}
    python = given.folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", given.folder], check=True)
    listed = given.folder / "floors.txt"
    listed.write_text("".join(f"{name}=={version}\n" for name, version in wanted.items()), encoding="utf-8")
    extras = f"{ROOT}[{','.join(EXTRAS)}]"
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", listed, "-e", extras, *TOOLS], check=True)
    # warnings of old versions about newer ones are not ours
    suite = [python, "-m", "pytest", "-W", "default", "-p", "no:cacheprovider", *SUITE]
    return subprocess.run(suite, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
