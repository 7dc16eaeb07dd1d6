"""The shape of the code: few entries, few parameters, short functions, small modules; each exception stands here with its reason."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
TREES = ("s2mlp_deploy", "exporters/s2mlp_exporters", "bench/s2mlp_bench", "bench/studies/s2mlp_studies")
MODULES = [file for tree in TREES for file in sorted((ROOT / tree).rglob("*.py"))]

MOST_ENTRIES, MOST_PARAMETERS, LONGEST_FUNCTION, LONGEST_MODULE, MEDIAN_MODULE = 18, 6, 60, 350, 200

COMMANDS = {
    "s2mlp_deploy/cli/export.py:export",
    "s2mlp_deploy/cli/repair.py:repair",
    "s2mlp_deploy/cli/verify.py:verify",
    "s2mlp_deploy/cli/tune.py:tune",
    "s2mlp_deploy/cli/sweep.py:sweep",
    "bench/s2mlp_bench/cli.py:bench",
    "bench/studies/s2mlp_studies/presets/__main__.py:bench",
    "bench/studies/s2mlp_studies/scale/__main__.py:scale",
}
"""Typer reads their options from their parameters, a few lines each."""

MANY_PARAMETERS = {
    "s2mlp_deploy/checkpoint/torch_format/tensors.py:_tensor_v2": "torch.save pickles a call with these arguments",
    "s2mlp_deploy/checkpoint/torch_format/tensors.py:_tensor_v3": "torch.save pickles a call with these arguments",
    "s2mlp_deploy/families/s2mlp/spec.py:single_stage": "one for each number of the paper's form, most with a default",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def functions() -> list[tuple[str, Function]]:
    """Every function, named as in the lists above: FILE:NAME."""
    return [
        (f"{file.relative_to(ROOT).as_posix()}:{node.name}", node)
        for file in MODULES
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, Function)
    ]


def parameters(function: Function) -> int:
    """The number of parameters, without self and cls."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def lines(function: Function) -> int:
    """The number of lines, without the docstring."""
    first = function.body[0]
    docstring = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) is not None else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_a_reader_of_the_core_sees_few_entries() -> None:
    ignored = {"py.typed", "__pycache__"}  # an empty marker, and no part of the source
    assert len({entry.name for entry in (ROOT / "s2mlp_deploy").iterdir()} - ignored) <= MOST_ENTRIES


def test_no_function_has_many_parameters() -> None:
    found = {name: parameters(function) for name, function in functions() if parameters(function) > MOST_PARAMETERS}
    assert {name: count for name, count in found.items() if name not in MANY_PARAMETERS.keys() | COMMANDS} == {}


def test_no_function_is_long() -> None:
    found = {name: lines(function) for name, function in functions() if lines(function) > LONGEST_FUNCTION}
    assert {name: count for name, count in found.items() if name not in COMMANDS} == {}


def test_modules_are_small() -> None:
    sizes = {file.relative_to(ROOT).as_posix(): len(file.read_text("utf-8").splitlines()) for file in MODULES}
    assert {name: size for name, size in sizes.items() if size > LONGEST_MODULE} == {}
    assert median(sizes.values()) < MEDIAN_MODULE


def test_every_exception_is_needed() -> None:
    many = {name for name, function in functions() if parameters(function) > MOST_PARAMETERS}
    assert MANY_PARAMETERS.keys() <= many
