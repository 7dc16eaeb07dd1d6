"""``--format web``: a folder that any web server can host, with a page that runs the model in the visitor's browser.

The page (``exporters/s2mlp_exporters/web/page``) and ONNX Runtime Web lie beside the model, and nothing is fetched from elsewhere. The folder is
a bundle like any other: ``s2mlp-verify`` checks its files, and its model with ONNX Runtime on this machine; what a
browser makes of it, the page checks there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.formats import onnx_scan
from s2mlp_deploy.formats.base import Compiler, refuse_other_files
from s2mlp_deploy.formats.settings import recorded
from s2mlp_deploy.runtime.onnxruntime import REMEDY, TracedSession, missing
from s2mlp_deploy.schema.manifest import FileName
from s2mlp_deploy.schema.precision import ON_CPUS, precision
from s2mlp_deploy.schema.strict_model import StrictModel
from s2mlp_deploy.system.dependencies import Shipped
from s2mlp_exporters.web.options import WebOptions

FILE = "model.onnx"

PAGE = Path(__file__).with_name("page")
"""The page's own files."""

PACKAGE, LICENSE = "onnxruntime-web", "MIT"

TESTED = "1.30.0"
"""The release of ONNX Runtime Web that the tests run."""

DIST = Path("node_modules") / PACKAGE / "dist"

WASM = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""ONNX Runtime Web's files for WebAssembly (14 MB)."""

WEBGPU = ("ort.jspi.min.mjs", "ort-wasm-simd-threaded.jspi.mjs", "ort-wasm-simd-threaded.jspi.wasm")
"""Its files for WebGPU by its native provider (17 MB), in the build that waits for the processor by JSPI, as Chromium and Firefox can.
The one that waits by Asyncify has 27 MB, the older JSEP 28 MB. A visitor loads the files of one backend."""

MEMORY_BYTES = 2**32
"""What WebAssembly can address."""

COPIES, COPIES_OF_HALF = 2, 4
"""The file and the weights; of float16 also the weights as float32, twice as large, which WebAssembly computes in (measured:
files of 1.9 GB in float32 and 0.8 GB in float16 load, of 1.1 GB in float16 do not)."""


class Settings(StrictModel):
    """The settings that the manifest records of a site: the runtime's release and files, and the page's files."""

    runtime: Literal["onnxruntime-web"] = "onnxruntime-web"
    runtime_version: str
    runtime_files: tuple[FileName, ...] = WASM
    page: tuple[FileName, ...]


class WebSite(Compiler):
    """Puts page, runtime and ``model.onnx`` together, and runs the latter."""

    name = "web"
    precisions = ON_CPUS
    options = WebOptions
    modules = ("onnxruntime",)
    install_hint = REMEDY

    def cannot_compile(self, options: WebOptions) -> str | None:
        """The reason where ONNX Runtime Web is missing; else None."""
        try:
            _runtime_version(_distribution(options), _runtime_files(options))
        except RuntimeMissingError as error:
            return str(error)
        return None

    def cannot_run(self, options: WebOptions) -> str | None:
        """The reason where onnxruntime is missing; else None."""
        return missing("cpu")

    def variants(self) -> tuple[Mapping[str, Any], ...]:
        """None: a browser runs it."""
        return ()

    def compile(self, bundle: Bundle, destination: Path, options: WebOptions) -> Artifact:
        """Copy the bundle's model, the page, and the runtime from ``ort_web`` (else from node_modules).

        Raises:
            UsageError: where a browser cannot run the model, or WebGPU cannot.
            RuntimeMissingError: where the runtime's files are not here.
        """
        _refuse_what_no_browser_runs(bundle, options)
        distribution = _distribution(options)
        runtime = _runtime_files(options)
        version = _runtime_version(distribution, runtime)
        page = tuple(sorted(file.name for file in PAGE.iterdir() if file.is_file()))
        shutil.copyfile(bundle.artifact.path, destination / FILE)
        for name in page:
            shutil.copyfile(PAGE / name, destination / name)
        for name in runtime:
            shutil.copyfile(distribution / name, destination / name)
        settings = Settings(runtime_version=version, runtime_files=runtime, page=page)
        return Artifact(destination, FILE, (FILE, *page, *runtime), settings.model_dump())

    def inspect(self, bundle: Bundle) -> None:
        """Refuse an artifact that is not one of this format, or could do more than compute."""
        settings = recorded(bundle.artifact, Settings)
        refuse_other_files(bundle, FILE, *settings.page, *settings.runtime_files)
        onnx_scan.inspect(bundle, FILE)

    def open(self, artifact: Artifact) -> TracedSession:
        """Load the model with ONNX Runtime's CPU provider on this machine.

        Raises:
            RuntimeMissingError: where onnxruntime is not installed.
            BundleError: where ONNX Runtime cannot load the file, or the settings are not what ``compile`` records.
        """
        recorded(artifact, Settings)
        return TracedSession(artifact.path)

    def versions(self) -> Mapping[str, str]:
        """None of Python's: the page comes with this package, and the runtime's release stands in the settings."""
        return {}

    def shipped(self, artifact: Artifact) -> tuple[Shipped, ...]:
        """ONNX Runtime Web."""
        return (Shipped("npm", PACKAGE, recorded(artifact, Settings).runtime_version, LICENSE),)


def _refuse_what_no_browser_runs(bundle: Bundle, options: WebOptions) -> None:
    manifest = bundle.manifest
    if options.webgpu and precision(manifest.precision).calibrated:
        raise UsageError(
            f"--webgpu: ONNX Runtime runs {bundle.directory}, which is {manifest.precision}, on the processor alone: leave it out, or export fp32 or fp16"
        )
    if len(bundle.artifact.files) > 1:
        raise UsageError(
            f"{bundle.directory} keeps its weights in a file of their own, and is more than a browser can hold: export a "
            "smaller model, or --precision int8"
        )
    half = precision(manifest.precision).read(manifest.arithmetic).half_weights
    needed = bundle.size_bytes * (COPIES_OF_HALF if half else COPIES)
    if needed > MEMORY_BYTES:
        raise UsageError(
            f"{bundle.directory} takes {needed / 1e9:.1f} GB to load, and a browser has {MEMORY_BYTES / 1e9:.1f} GB: export a smaller "
            "model, or --precision int8"
        )
    if manifest.input.dtype != "float32":
        raise UsageError(
            f"{bundle.directory} takes {manifest.input.dtype} input, which the page does not prepare: export the checkpoint "
            "without --io-dtype"
        )


def _distribution(options: WebOptions) -> Path:
    """The folder with ONNX Runtime Web's files: as given, or in node_modules here or in this repository."""
    if options.ort_web:
        return options.ort_web
    places = [Path.cwd() / DIST, PAGE.parent.parent / DIST]
    return next((place for place in places if place.is_dir()), DIST)


def _runtime_files(options: WebOptions) -> tuple[str, ...]:
    return WASM + WEBGPU if options.webgpu else WASM


def _runtime_version(distribution: Path, files: tuple[str, ...]) -> str:
    """The release of ONNX Runtime Web in ``distribution``, from the package that this is a folder of.

    Raises:
        RuntimeMissingError: where a file is missing.
    """
    lacking = [name for name in files if not (distribution / name).is_file()]
    package = distribution.parent / "package.json"
    if lacking or not package.is_file():
        found = (
            f"has no {lacking[0] if lacking else 'package.json beside it'}" if distribution.is_dir() else "is not there"
        )
        raise RuntimeMissingError(
            f"{distribution} {found}: expected the folder dist of the npm package {PACKAGE}. npm install {PACKAGE}@{TESTED} puts it into "
            "this folder; or give --ort-web DIR"
        )
    try:
        content = json.loads(package.read_text("utf-8"))
        name, version = content["name"], str(content["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeMissingError(f"{package} cannot be read: npm install {PACKAGE}@{TESTED} again") from error
    if name != PACKAGE:
        raise RuntimeMissingError(f"{package} is of the package {name!r}: expected {PACKAGE}")
    return version
