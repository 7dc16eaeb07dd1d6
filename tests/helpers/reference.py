"""The reference in docs/reference, from the commands and the models themselves: ``make docs-output`` writes it."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import s2mlp_deploy
from helpers import schema_page
from helpers.oldest import project
from helpers.support import command
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.report import Report

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "docs" / "reference"
MODELS: dict[str, type[BaseModel]] = {"manifest.json": Manifest, "report.json": Report}
MODULES = {"s2mlp-bench": "s2mlp_bench.cli"}

INTRODUCTION = """\
# Commands

The help of each command, as `-h` prints it; written by `make docs-output`. Exit codes: 0 done, 1 the numbers are off, 2 usage, 3 bad input, 4 a package or device
is missing, 130 interrupted. `s2mlp` lists the commands, and `s2mlp export` is `s2mlp-export`; so is `python -m s2mlp_deploy export`, where scripts are not on the path. [stability.md](../stability.md) says what of this may change.

Shells complete the options of all commands, once they know the script that `python -m s2mlp_deploy completion SHELL` prints:

| shell | once | in its start-up file |
|---|---|---|
| bash | `python -m s2mlp_deploy completion bash > ~/.s2mlp.bash` | `. ~/.s2mlp.bash` in `~/.bashrc` |
| zsh | `python -m s2mlp_deploy completion zsh > ~/.s2mlp.zsh` | `. ~/.s2mlp.zsh` in `~/.zshrc`, below `compinit` |
| fish | `python -m s2mlp_deploy completion fish > ~/.config/fish/conf.d/s2mlp.fish` | |
| PowerShell | `python -m s2mlp_deploy completion powershell >> $PROFILE` | |
"""

PYTHON = """\
# Python

The public names of `s2mlp_deploy`, and of its modules `shift` and `errors`; nothing else is public. [stability.md](../stability.md) says how they may
change. This page lists the names, and `make docs` takes the rest from the source.
"""
SECTIONS = {
    "deploy": "Export",
    "tune": "Tune",
    "verify": "Verify",
    "load_checkpoint": "Read a checkpoint",
    "Error": "Errors",
}
"""The name that each section of the page on Python begins with, in the order of ``__all__``."""


def pages() -> dict[str, str]:
    """The content of each file of docs/reference, by name."""
    return {
        "commands.md": _commands(),
        "python.md": _python(),
        "bundle.md": schema_page.page({f: m.model_json_schema(mode="serialization") for f, m in MODELS.items()}),
        **{f.replace(".json", ".schema.json"): _schema(m, f"{f} of a bundle") for f, m in MODELS.items()},
    }


def other_versions() -> list[str]:
    """The packages that shape the pages and are installed in other versions than constraints.txt has."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line)
    return [name for name in ("pydantic", "typer") if version(name) != pins[name]]


def commands() -> list[str]:
    """The scripts that are commands of their own, not ``s2mlp``, which runs them."""
    return [name for name in project()["scripts"] if name != "s2mlp"]


def _commands() -> str:
    sections = []
    for name in commands():
        module = MODULES.get(name, f"s2mlp_deploy.cli.{name.removeprefix('s2mlp-')}")
        shown = command(name, module, "main", "--help")
        assert shown.code == 0, shown.err
        lines = "\n".join(line.rstrip() for line in shown.out.strip("\n").splitlines())
        sections.append(f"\n## {name}\n\n```text\n{lines}\n```\n")
    return INTRODUCTION + "".join(sections)


def _python() -> str:
    lines = []
    for name in s2mlp_deploy.__all__:
        if name in SECTIONS:
            lines.append(f"## {SECTIONS[name]}")
        if name != "Error":  # the module lists it, with all others
            lines.append(f"::: s2mlp_deploy.{name}")
    whole = "\n    options: {show_root_heading: false}"
    lines += [f"::: s2mlp_deploy.errors{whole}", "## Train with the shift", f"::: s2mlp_deploy.shift{whole}"]
    return PYTHON + "".join(f"\n{line}\n" for line in lines)


def _schema(model: type[BaseModel], title: str) -> str:
    schema: dict[str, Any] = model.model_json_schema(mode="serialization")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return (
        json.dumps({**head, **{k: v for k, v in schema.items() if k not in head}}, indent=2, ensure_ascii=False) + "\n"
    )


def main() -> None:
    """Write the pages that have changed."""
    if others := other_versions():
        sys.exit(f"not written: {', '.join(others)} in other versions than constraints.txt has")
    PLACE.mkdir(exist_ok=True)
    for name, content in pages().items():
        file = PLACE / name
        changed = not file.exists() or file.read_text("utf-8") != content
        if changed:
            file.write_text(content, "utf-8")
        print(f"{'written   ' if changed else 'as before '} docs/reference/{name}")


if __name__ == "__main__":
    main()
