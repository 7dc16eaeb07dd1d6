"""Find installed Python packages: transitive requirements, declared licences, the command to install a missing one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions, requires
from importlib.util import find_spec
from shlex import quote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "s2mlp-deploy"

_LONGEST_NAME = 80
"""Characters of a licence's name; a longer value in that field is the licence's text."""


@dataclass(frozen=True)
class Package:
    """A package at one version; the other fields are empty where that version is not installed.

    ``licenses`` are as its metadata declare them: one SPDX expression, or names. ``requires`` are the packages that it
    requires and that are installed.
    """

    version: str
    licenses: tuple[str, ...] = ()
    requires: frozenset[str] = frozenset()


@cache
def pip_install(extra: str) -> str:
    """The command that installs what ``extra``, one of this project's optional dependencies, consists of.

    It names the packages themselves, so that it works wherever this project was installed from: a clone, a wheel or an
    index.
    """
    try:
        declared = [Requirement(text) for text in requires(PROJECT) or ()]
    except PackageNotFoundError:  # a clone on the path that was never installed
        return f"pip install '.[{extra}]'"
    wanted = [
        r for r in declared if r.marker and r.marker.evaluate({"extra": extra}) and not r.marker.evaluate({"extra": ""})
    ]
    if not wanted:
        raise ValueError(f"{PROJECT} has no extra {extra!r}")
    return " ".join(["pip install", *(quote(f"{r.name}{r.specifier}") for r in wanted)])


def missing_modules(modules: tuple[str, ...]) -> tuple[str, ...]:
    """Those Python ``modules`` that are not installed; none is imported."""
    return tuple(module for module in modules if not _is_installed(module))


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around a submodule
        return False


def closure(roots: Mapping[str, str | None]) -> dict[str, Package]:
    """``roots`` and their transitive requirements, by normalized name.

    A root has the given version, or else the installed one; a root with neither is left out.
    """
    roots = {canonicalize_name(name): version for name, version in roots.items()}
    found: dict[str, Package] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    waiting = [(name, frozenset[str]()) for name in roots]
    while waiting:
        name, extras = item = waiting.pop()
        if item in done:
            continue
        done.add(item)
        version = roots.get(name)
        if installed := _installed(name, version):
            needed = list(_required(installed, extras))
            waiting += needed
            requires = {other for other, _ in needed} | (found[name].requires if name in found else set())
            found[name] = Package(installed.version, _licenses(installed), frozenset(requires))
        elif version:
            found[name] = Package(version)
    return {n: Package(p.version, p.licenses, p.requires & found.keys()) for n, p in sorted(found.items())}


def owners(module: str) -> tuple[str, ...]:
    """The installed packages that provide ``module``."""
    return tuple(sorted({canonicalize_name(name) for name in distributions(module.partition(".")[0])}))


def distributions(module: str) -> tuple[str, ...]:
    """The installed packages that provide the top-level ``module``, under their declared names."""
    return tuple(_distributions(tuple(sys.path)).get(module, ()))


@cache
def _distributions(path: tuple[str, ...]) -> Mapping[str, list[str]]:
    """The packages of every top-level module on ``path`` (sys.path); listing the packages' files takes 0.5 s."""
    return packages_distributions()


def _installed(name: str, version: str | None) -> Distribution | None:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    return found if version in (None, found.version) else None


def _required(package: Distribution, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for requirement in map(Requirement, package.requires or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def _licenses(package: Distribution) -> tuple[str, ...]:
    expression, *_ = package.metadata.get_all("License-Expression") or [""]
    if expression:
        return (expression,)
    name = " ".join(package.metadata.get_all("License") or []).strip()
    if name and name != "UNKNOWN" and len(name) <= _LONGEST_NAME and "\n" not in name:
        return (_last(name),)
    classifiers = package.metadata.get_all("Classifier") or []
    return tuple(sorted(_last(c) for c in classifiers if c.startswith("License :: ")))


def _last(classifier: str) -> str:
    return classifier.rpartition(" :: ")[2]


@dataclass(frozen=True)
class Shipped:
    """A third-party package of which a part is copied into an artifact.

    ``kind`` is its type in package URLs (``npm``, ``pypi``, …), ``license`` an SPDX expression.
    """

    kind: str
    name: str
    version: str
    license: str
