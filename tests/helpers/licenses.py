"""What is installed with this project, and under which licences: ``make licenses``."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.oldest import project
from s2mlp_deploy.system.dependencies import Package, closure

ELSEWHERE = {
    "jetson-stats": Package("", ("AGPL-3.0",)),
    **dict.fromkeys(("alembic", "sqlalchemy"), Package("", ("MIT",))),
    "mlflow-skinny": Package("", ("Apache-2.0",)),
    "mkdocs-material": Package("", ("MIT",)),
    "mkdocstrings": Package("", ("ISC",)),
    "ray": Package("", ("Apache-2.0",)),
    "onnxruntime-gpu": Package("", ("MIT",)),
    "tensorrt": Package("", ("Proprietary",)),
}
"""What belongs to other machines or environments and is not installed for development, by its page in the registry."""

COPYLEFT = re.compile(r"GPL|MPL|Mozilla|EPL|CDDL|EUPL|OSL|CeCILL", re.IGNORECASE)

INTRODUCTION = """\
# Dependencies

Written by `make licenses` from the metadata of what `make venv` installs. Each package stands where it first comes in; an extra
takes what stands above it for granted. **Copyleft** marks licences that ask something of who passes the package on: none of those is
needed to export, to verify or to run anything, but tqdm (MPL-2.0 and MIT) for `--format coreml`, where coremltools loads it; LiteRT's package
requires it, too, and ExecuTorch's certifi and hypothesis, and neither loads them to run a model; model-signing loads certifi, and uses it for
Sigstore alone. Nothing of these packages lies in a bundle, but ONNX Runtime Web (MIT), in those of `--format web`; `--sbom` names the packages
that made a bundle.

Vulnerabilities become known from day to day, so no list of them stands here. `pip install pip-audit`, then
`pip-audit -r constraints.txt --no-deps --disable-pip` queries the advisory database (it needs the internet; it was not run where these
tests are). It also takes a bundle's bill of materials by way of any CycloneDX scanner.

`make oldest` runs the tests with the lowest versions that `pyproject.toml` allows (`constraints-oldest.txt`), but for torch, whose
oldest build for the CPU alone in the registry is 2.13. The extras for GPUs and Jetsons, and torch 2.7 to 2.12, were not run.
"""


def document() -> str:
    """The page."""
    content = project()
    groups = {"base": content["dependencies"], **content["optional-dependencies"]}
    seen: set[str] = set()
    sections = []
    for name, requirements in groups.items():
        packages = {n: p for n, p in closure_of(requirements).items() if n not in seen}
        seen |= packages.keys()
        rows = "".join(f"| {n} | {p.version or 'not installed here'} | {_shown(p)} |\n" for n, p in packages.items())
        if rows:
            title = "Always" if name == "base" else f"With `[{name}]`"
            sections.append(f"\n## {title}\n\n| package | version | licence |\n|---|---|---|\n{rows}")
    return INTRODUCTION + "".join(sections)


def closure_of(requirements: list[str]) -> dict[str, Package]:
    """What ``requirements`` install here, all over; of what belongs to other machines what is known of it."""
    wanted = [r for r in map(Requirement, requirements) if not r.marker or r.marker.evaluate()]
    extras = [e for r in wanted for extra in r.extras for e in _of_extra(r.name, extra)]
    names = {canonicalize_name(n) for n in (*(r.name for r in wanted), *extras)}
    found = closure(dict.fromkeys(names))
    return {name: found.get(name) or ELSEWHERE[name] for name in sorted({*names, *found})}


def _of_extra(package: str, extra: str) -> list[str]:
    try:
        requires = distribution(package).requires or []
    except PackageNotFoundError:
        return []
    found = [r for r in map(Requirement, requires) if r.marker and r.marker.evaluate({"extra": extra})]
    return [r.name for r in found] + [e for r in found for x in r.extras for e in _of_extra(r.name, x)]


def _shown(package: Package) -> str:
    text = ", ".join(package.licenses) or "not declared"
    return text + " – **copyleft**" * bool(COPYLEFT.search(text))


if __name__ == "__main__":
    sys.stdout.write(document())
