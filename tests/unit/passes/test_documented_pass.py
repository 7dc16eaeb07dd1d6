"""The worked example of docs/extending.md, a pass and its tests, run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from helpers.support import ROOT

pytestmark = pytest.mark.slow  # starts pytest once more


def test_the_documented_pass_keeps_its_own_tests(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "extending.md").read_text("utf-8")
    section = text[text.index("## A pass\n") : text.index("## A check\n")]
    blocks = [textwrap.dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```", section, re.M | re.S)]
    (tmp_path / "test_example.py").write_text("from __future__ import annotations\n" + "\n".join(blocks), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and "5 passed" in ran.stdout, ran.stdout + ran.stderr
