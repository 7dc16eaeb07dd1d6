"""The suite keeps its own rules: tests stand alone, and what names them from outside names those that there are."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec

import pytest

from helpers import processes
from helpers.support import ROOT

TESTS = sorted((ROOT / "tests").rglob("*.py"))
IMPORTS = re.compile(r"^\s*(?:from|import)\s+(?:\S+\.)?test_\w+", re.MULTILINE)


def test_no_test_imports_a_test() -> None:
    """Neither itself, in code for another process: what several use is in tests/helpers."""
    assert len(TESTS) > 100
    assert [path.name for path in TESTS if IMPORTS.search(path.read_text("utf-8"))] == []


def test_what_make_leaves_out_is_there() -> None:
    left_out = re.findall(r"--deselect (\S+)::(\w+)", (ROOT / "Makefile").read_text("utf-8"))
    assert left_out
    for path, name in left_out:
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (path, name)


def test_the_commands_that_contributing_lists_are_there() -> None:
    _, _, text = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## Which tests run where\n")
    listed = re.findall(r"^\| `make ([\w-]+)` \|", text, re.MULTILINE)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert len(listed) == len(set(listed)) > 5 and set(listed) <= set(targets)


@pytest.mark.parametrize("module", processes.PRELOADED)
def test_what_the_server_of_processes_loads_ahead_is_there(module: str) -> None:
    """It passes over what it cannot import, and each process would be slow."""
    assert find_spec(module)
