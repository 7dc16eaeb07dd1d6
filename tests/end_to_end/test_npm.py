"""Tests without the mark ``npm`` need nothing of npm's: what is here of it is known to one module."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from helpers.support import ROOT

WORDS = ("node_" + "modules", "import DI" + "ST", "web.exporter import DI" + "ST")


def test_one_module_looks_for_packages_of_npm() -> None:
    files = [*(ROOT / "tests").rglob("*.py")]
    assert {f.name for f in files if any(word in f.read_text("utf-8") for word in WORDS)} == {"npm.py"}


@pytest.mark.skipif(not shutil.which("make"), reason="no make: apt-get install make")
def test_make_brings_them_after_the_tests_that_need_none_and_before_those_that_do() -> None:
    around = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    plan = ["make", "-n", "test", "NODE_STAMP=not-yet"]
    done = subprocess.run(plan, cwd=ROOT, env=around, capture_output=True, text=True, check=True)
    steps = ["-m 'not npm'", "npm ci", "-m npm"]
    found = [next(i for i, line in enumerate(done.stdout.splitlines()) if step in line) for step in steps]
    assert found == sorted(found)
