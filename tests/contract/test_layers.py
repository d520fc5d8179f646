"""The house: each storey imports from the storeys below it, never sideways, never up."""

import ast
from pathlib import Path

import pytest

import sightline

ROOT = Path(sightline.__file__).parent
GROUND = {"errors", "types", "protocols", "settings", "vectors"}
LOWER = GROUND | {"media", "prep", "model", "engine"}
FACES = {"cli", "server", "scale", "evaluate", "train", "integrations"}

# storey -> (storeys it may import, third-party packages it may import)
HOUSE: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), {"numpy"}),
    "types": ({"errors"}, {"numpy"}),
    "settings": ({"errors"}, {"numpy"}),
    "protocols": ({"errors", "types"}, {"numpy"}),
    "vectors": ({"errors", "types"}, {"numpy"}),
    "media": (GROUND, {"numpy", "PIL", "av", "pypdfium2", "pillow_heif"}),
    "prep": (GROUND, {"numpy", "tokenizers"}),
    "model": (GROUND, {"numpy", "torch", "safetensors", "huggingface_hub", "modelscope"}),
    "engine": (GROUND | {"prep", "model"}, {"numpy", "torch", "safetensors"}),
    "embed": (LOWER | {"builtin"}, {"numpy", "torch", "rich"}),
    "rerank": (LOWER | {"builtin"}, {"numpy", "torch", "rich"}),
    "qwen": (LOWER | {"embed", "rerank"}, {"numpy", "torch"}),
    "remote": (GROUND | {"media", "prep"}, {"numpy", "PIL", "av"}),
    "store": (GROUND, {"numpy", "pyarrow", "lancedb", "lance"}),
    "search": (GROUND | {"media", "store"}, {"numpy"}),
    "library": (GROUND | {"media", "store", "search"}, {"numpy"}),
    "builtin": (set(), set()),
    "testing": (GROUND, {"numpy"}),
    "__main__": ({"cli"}, set()),
}


def storey(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def imported(path: Path) -> set[str]:
    """Every dotted name a file imports, at any depth and under TYPE_CHECKING too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            if node.module == "sightline":
                names.update(f"sightline.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_down_only(path: Path) -> None:
    import sys

    here = storey(path)
    if here in FACES:
        others = FACES - {here}
        found = {name.split(".")[1] for name in imported(path) if name.startswith("sightline.")}
        if here != "cli":
            assert not found & others, f"{here} imports the face {found & others}"
        return
    assert here in HOUSE, f"{here} has no place in the house"
    allowed, packages = HOUSE[here]
    for name in imported(path):
        head, _, rest = name.partition(".")
        if head == "sightline":
            target = rest.split(".")[0]
            # `from sightline import __version__` is the door's own name, not a storey
            assert target in allowed | {here, "", "__version__"}, f"{here} may not import sightline.{target}"
        elif head not in sys.stdlib_module_names:
            assert head in packages, f"{here} may not import {head}"


def test_lancedb_is_known_to_one_file() -> None:
    users = {path.name for path in modules() if {"lancedb", "lance"} & {n.split(".")[0] for n in imported(path)}}
    assert users <= {"lance.py"}


def test_no_file_without_a_name() -> None:
    bad = {"utils.py", "helpers.py", "common.py", "misc.py", "base.py"}
    assert not [path for path in modules() if path.name in bad]
