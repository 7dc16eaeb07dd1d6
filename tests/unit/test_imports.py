"""Runtimes are imported only where they are used: what needs none works with none installed.

Each check runs in a process that cannot find the packages it hides, as if they were not installed.
"""

from __future__ import annotations

import json
import pkgutil
import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import s2mlp_deploy
from helpers.bare import OPTIONAL, Bare, answer, bare
from helpers.support import ROOT, SOURCES, run, save_checkpoint, small_spec
from s2mlp_deploy.system.dependencies import pip_install

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.slow  # a Python of its own for many

PACKAGES = tuple(SOURCES)


NEEDS = {
    "s2mlp_deploy.checkpoint.load": "torch",
    "s2mlp_deploy.data.images": "PIL",
    "s2mlp_deploy.quantization.int8": "PIL",
    "s2mlp_deploy.quantization.evaluation_split": "PIL",
    "s2mlp_deploy.quantization.task": "torch",
    "s2mlp_deploy.gate.reference_logits": "torch",
    "s2mlp_deploy.pipeline.export_onnx": "torch",
    "s2mlp_deploy.pipeline.bundle_record": "torch",
    "s2mlp_deploy.pipeline.checkpoint_context": "torch",
    "s2mlp_deploy.pipeline.expected_logits": "torch",
    "s2mlp_deploy.pipeline.graph_checks": "torch",
    "s2mlp_deploy.pipeline.context": "torch",
    "s2mlp_deploy.shift": "torch",
    "s2mlp_deploy.families.reference": "torch",
    "s2mlp_deploy.families.shift_reference": "torch",
    "s2mlp_deploy.families.mixer.reference": "torch",
    "s2mlp_deploy.families.s2mlp.reference": "torch",
    "s2mlp_deploy.families.s2mlp_v2.reference": "torch",
    "s2mlp_deploy.families.staged.reference": "torch",
    "s2mlp_deploy.families.staged.structures": "torch",
    "s2mlp_deploy.gate.structure_evidence": "torch",
    "s2mlp_deploy.bundle.openssf": "cryptography",
    "s2mlp_deploy.bundle.sbom": "cyclonedx",
    "s2mlp_deploy.checkpoint.torch_format.archive": "torch",
    "s2mlp_deploy.checkpoint.torch_format.legacy": "torch",
    "s2mlp_deploy.checkpoint.torch_format.read": "torch",
    "s2mlp_deploy.checkpoint.torch_format.tensors": "torch",
    "s2mlp_deploy.checkpoint.weight_sets": "torch",
    "s2mlp_bench.baselines.naive": "torch",
    "s2mlp_exporters.executorch.graph_module": "torch",
    "s2mlp_exporters.executorch.operators": "torch",
    "s2mlp_exporters.executorch.quantization": "torch",
}
"""The modules that wrap an optional package; every other one works without any."""


def modules_of(package: str) -> list[str]:
    """``package`` and every module in it, without importing any."""
    found = pkgutil.walk_packages([str(ROOT / SOURCES[package] / package)], f"{package}.", onerror=lambda _: None)
    return [package, *(module.name for module in found)]


def test_a_wheel_installs_the_three_packages_and_no_name_that_others_may_use() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(build) == {"packages"}
    assert {Path(place).name for place in build["packages"]} == {"s2mlp_deploy", "s2mlp_exporters", "s2mlp_bench"}


MODULES = [module for package in PACKAGES for module in modules_of(package)]
COMMANDS = ("inspect", "export", "repair", "tune", "sweep", "verify", "doctor")
HELP = [(f"s2mlp-{name}", "--help") for name in COMMANDS]


@pytest.fixture(scope="module")
def nothing_installed() -> Bare:
    """A process in which no optional package can be found."""
    return bare(
        OPTIONAL,
        *(("import", module) for module in MODULES),
        *HELP,
        ("s2mlp-doctor",),
        ("s2mlp-inspect", "ckpt.pt"),
        ("s2mlp-export", "ckpt.pt"),
        ("s2mlp-verify", "nowhere"),
    )


@pytest.fixture(scope="module")
def only_onnxruntime(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """A device that has onnxruntime and a bundle, and nothing else."""
    directory = tmp_path_factory.mktemp("device")
    checkpoint = save_checkpoint(directory / "small.pt", small_spec())
    assert run("export", checkpoint, "-o", directory / "bundle").code == 0
    hidden = tuple(name for name in OPTIONAL if name != "onnxruntime")
    bundle = str(directory / "bundle")
    return bare(
        hidden,
        ("s2mlp-verify", bundle),
        ("s2mlp-verify", bundle, "--per-block"),
        ("s2mlp-verify", bundle, "--json"),
        ("s2mlp-doctor", "--json"),
        ("s2mlp-export", str(checkpoint), "-o", str(directory / "other")),
    )


# Modules


@pytest.mark.parametrize("module", [m for m in MODULES if m not in NEEDS])
def test_a_module_that_wraps_no_runtime_imports_without_any(nothing_installed: Bare, module: str) -> None:
    assert nothing_installed.answers["import", module].get("missing") is None


@pytest.mark.parametrize("module", NEEDS)
def test_a_module_that_wraps_an_optional_package_needs_just_that(nothing_installed: Bare, module: str) -> None:
    assert nothing_installed.answers["import", module].get("missing") == NEEDS[module]


def test_only_the_base_dependencies_are_loaded(nothing_installed: Bare) -> None:
    allowed = closure(base_dependencies())
    owners = packages_distributions()
    foreign = {
        name: owners.get(name, file)
        for name, file in nothing_installed.modules.items()
        if name not in (*sys.stdlib_module_names, *PACKAGES, "__mp_main__")  # multiprocessing's name of __main__
        and not name.startswith("_sysconfigdata")
        and not {canonicalize_name(d) for d in owners.get(name, [])} & allowed
    }
    assert foreign == {}


def base_dependencies() -> list[str]:
    """``project.dependencies`` of pyproject.toml."""
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return list(content["project"]["dependencies"])


def closure(requirements: list[str]) -> set[str]:
    """The distributions that ``requirements`` install here, with all that those need."""
    found: set[str] = set()
    waiting = [Requirement(r) for r in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or not (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += [Requirement(r) for r in requires(name) or []]
    return found


def test_no_optional_package_hides_among_the_base_dependencies() -> None:
    owners = packages_distributions()
    optional = {canonicalize_name(d) for name in OPTIONAL for d in owners.get(name, [])}
    assert optional and not optional & closure(base_dependencies())


@pytest.mark.parametrize("requirement", base_dependencies())
def test_every_base_dependency_is_installed_and_used(requirement: str, nothing_installed: Bare) -> None:
    parsed = Requirement(requirement)
    if parsed.marker and not parsed.marker.evaluate():
        pytest.skip(f"not for this Python: {requirement}")
    try:
        assert version(parsed.name) in parsed.specifier
    except PackageNotFoundError:
        pytest.fail(f"{requirement} is not installed")
    names = {
        n
        for n, owners in packages_distributions().items()
        if canonicalize_name(parsed.name) in map(canonicalize_name, owners)
    }
    assert names & nothing_installed.modules.keys()


# Commands


@pytest.mark.parametrize("command", [step[0] for step in HELP])
def test_help_needs_nothing(nothing_installed: Bare, command: str) -> None:
    shown = nothing_installed.answers[command, "--help"]
    assert (shown["code"], shown["err"]) == (0, "") and "Usage: " in shown["out"]


def test_the_doctor_works_where_everything_is_missing(nothing_installed: Bare) -> None:
    shown = nothing_installed.answers[("s2mlp-doctor",)]
    text = " ".join(shown["out"].split())
    assert shown["code"] == 0
    assert "✗ export a checkpoint: torch, onnxruntime, onnxsim, PIL missing" in text
    assert "✗ run and verify onnx bundles: onnxruntime missing. pip install onnxruntime" in text


@pytest.mark.parametrize("command", ["s2mlp-inspect", "s2mlp-export"])
def test_what_needs_torch_says_so_and_how_to_get_it(nothing_installed: Bare, command: str) -> None:
    shown = nothing_installed.answers[command, "ckpt.pt"]
    assert (shown["code"], shown["out"]) == (4, "")
    assert "torch" in shown["err"] and pip_install("export") in shown["err"]


def test_a_bad_bundle_is_told_before_a_missing_runtime(nothing_installed: Bare) -> None:
    shown = nothing_installed.answers["s2mlp-verify", "nowhere"]
    assert shown["code"] == 3 and "nowhere does not exist" in shown["err"]


def test_a_device_without_torch_can_check_a_bundle(only_onnxruntime: Bare) -> None:
    shown = answer(only_onnxruntime, "s2mlp-verify")
    assert shown["code"] == 0, shown
    assert "PASSED" in shown["out"]


def test_a_device_without_torch_can_look_into_a_bundle(only_onnxruntime: Bare) -> None:
    shown = answer(only_onnxruntime, "s2mlp-verify", "--per-block")
    assert shown["code"] == 0 and "stage0/block01" in shown["out"]
    assert json.loads(answer(only_onnxruntime, "s2mlp-verify", "--json")["out"])["passed"] is True


def test_checking_a_bundle_loads_none_of_what_exports_need(only_onnxruntime: Bare) -> None:
    assert not only_onnxruntime.modules.keys() & (set(OPTIONAL) - {"onnxruntime"})


def test_the_doctor_tells_what_such_a_device_can_do(only_onnxruntime: Bare) -> None:
    (shown,) = (a for step, a in only_onnxruntime.answers.items() if step[0] == "s2mlp-doctor")
    available = {a["name"]: a["available"] for a in json.loads(shown["out"])["abilities"]}
    assert available["run and verify onnx bundles"] is True and available["export a checkpoint"] is False


@pytest.mark.parametrize("package", ["onnxsim", "onnxruntime"])
def test_an_export_that_lacks_one_package_names_it_and_publishes_nothing(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec())
    monkeypatch.setitem(sys.modules, package, None)
    ran = run("export", checkpoint, "-o", tmp_path / "new" / "bundle")
    assert ran.code == 4 and package in ran.err.splitlines()[-1] and "pip install" in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["small.pt"]


# The public names


def test_every_public_name_resolves_and_is_listed_once() -> None:
    assert len(set(s2mlp_deploy.__all__)) == len(s2mlp_deploy.__all__)
    for name in s2mlp_deploy.__all__:
        assert getattr(s2mlp_deploy, name) is not None


def test_the_public_names_are_all_that_a_star_import_brings() -> None:
    names: dict[str, Any] = {}
    exec("from s2mlp_deploy import *", names)
    assert names.keys() - {"__builtins__"} == set(s2mlp_deploy.__all__)


def test_names_that_are_loaded_when_used_are_the_public_ones() -> None:
    assert s2mlp_deploy._NAMES.keys() == set(s2mlp_deploy.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'exprot'"):
        _ = s2mlp_deploy.exprot


def test_completion_offers_the_public_names_and_nothing_else() -> None:
    modules = {m.split(".")[1] for m in MODULES if m.startswith("s2mlp_deploy.")}
    offered = {name for name in dir(s2mlp_deploy) if not name.startswith("_")}
    assert offered - modules == set(s2mlp_deploy.__all__)


# What is missing, and how to install it

EXTRAS = (
    "export",
    "gpu",
    "trt",
    "trt-rtx",
    "openvino",
    "litert",
    "vela",
    "coreml",
    "plot",
    "sbom",
    "sign",
    "bench",
    "mlflow",
    "ray",
    "loadgen",
    "jetson",
)


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_is_missing_is_installed_by_a_command_that_works_from_anywhere(extra: str) -> None:
    """It names packages: this project itself is on no index, and where it was cloned to is not known."""
    program, verb, *wanted = shlex.split(pip_install(extra))
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"][extra]
    here = [r for r in map(Requirement, declared) if r.marker is None or r.marker.evaluate()]
    assert (program, verb) == ("pip", "install")
    assert {(r.name, r.specifier) for r in map(Requirement, wanted)} == {(r.name, r.specifier) for r in here}


def test_no_message_names_this_project_as_if_an_index_had_it() -> None:
    files = [f for folder in ("s2mlp_deploy", "exporters", "bench", "docs") for f in (ROOT / folder).rglob("*.*")]
    texts = {f: f.read_text("utf-8") for f in [*files, ROOT / "README.md"] if f.suffix in (".py", ".md", ".js")}
    assert [f.name for f, text in texts.items() if re.search(r"pip install [^\n`]*(?<!/)s2mlp-deploy", text)] == []
