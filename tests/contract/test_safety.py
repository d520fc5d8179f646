"""What the code may not do at all, read from its syntax."""

import ast
from collections.abc import Iterator
from pathlib import Path

import sightline

ROOT = Path(sightline.__file__).parent
SERIALISERS = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "jsonpickle",
    "yaml",
}
"""Packages whose files can run code when they are read."""
CALLS = {
    "torch.load",
    "torch.save",
    "torch.hub.load",
    "torch.jit.load",
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
}
"""What runs what it is given, or reads and writes pickles."""
MAY_CALL: dict[str, set[str]] = {}
"""File -> calls of it that are allowed, each with its reason beside it."""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def trees() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_no_pickle_and_nothing_like_it() -> None:
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found = {(node.module or "").partition(".")[0]}
            else:
                continue
            assert not found & SERIALISERS, f"{name} imports {found & SERIALISERS}"


def test_nothing_runs_what_it_is_given() -> None:
    for name, tree in trees():
        for called, node in calls(tree):
            assert called not in CALLS - MAY_CALL.get(name, set()), f"{name}:{node.lineno} calls {called}"
            for keyword in node.keywords:
                said = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                assert not (said and keyword.arg in {"allow_pickle", "trust_remote_code", "shell"}), (
                    f"{name}:{node.lineno}"
                )


def test_no_check_of_a_file_or_caller_is_an_assert() -> None:
    """Under ``python -O`` an assert is gone: each that is there is a mistake of ours, and is listed here."""
    found = [
        f"{name}: {ast.unparse(node.test)}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert sorted(found) == sorted(OURS), "an assert may only hold what we have made ourselves; list it"


OURS = [
    "engine/queue.py: prompt is not None",
    "model/vl.py: len(rows) == len(features[0])",
    "prep/patches.py: height % side == 0 and width % side == 0",
    "prep/positions.py: len(starts) == len(runs)",
    "server/files.py: state is not None",
    "server/searching.py: query is not None",
    "server/uploads.py: self._complete",
    "train/builtin/looking.py: all((grid == grids[0] for grid in grids))",
    "train/builtin/steps.py: part.owner is not None",
    "train/contrast.py: batch.kind == 'distil' and batch.teacher is not None",
    "train/contrast.py: batch.owner is not None",
    "train/contrast.py: batch.owner is not None",
    "train/contrast.py: batch.scores is not None",
    "train/contrast.py: batch.scores is not None",
    "train/walk.py: num_rows >= batch >= 1",
]
