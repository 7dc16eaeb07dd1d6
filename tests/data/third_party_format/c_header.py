"""``--format c-header``: the ONNX file, and the same bytes as an array in C, for firmware that links it."""

from collections.abc import Mapping
from pathlib import Path
from shutil import copyfile
from typing import Annotated

from pydantic import Field

from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.formats import onnx_scan
from s2mlp_deploy.formats.base import Compiler, refuse_other_files
from s2mlp_deploy.formats.options import Options
from s2mlp_deploy.formats.settings import recorded
from s2mlp_deploy.runtime.onnxruntime import TracedSession
from s2mlp_deploy.schema.strict_model import StrictModel

MODEL, HEADER = "model.onnx", "model.h"
Symbol = Annotated[str, Field(pattern="^[a-z_][a-z0-9_]{0,30}$", description="The name of the array.")]


class CHeaderOptions(Options):
    symbol: Symbol = "model"


class Settings(StrictModel):
    symbol: Symbol


class CHeader(Compiler):
    name = "c-header"
    precisions = ("fp32", "int8")
    options = CHeaderOptions
    modules = ("onnxruntime",)
    install_hint = "pip install onnxruntime"

    def compile(self, bundle: Bundle, destination: Path, options: CHeaderOptions) -> Artifact:
        copyfile(bundle.artifact.path, destination / MODEL)
        (destination / HEADER).write_text(header(destination / MODEL, options.symbol))
        return Artifact(destination, MODEL, (MODEL, HEADER), {"symbol": options.symbol})

    def inspect(self, bundle: Bundle) -> None:
        settings = recorded(bundle.artifact, Settings)
        refuse_other_files(bundle, MODEL, HEADER)
        onnx_scan.inspect(bundle, MODEL)
        if (bundle.directory / HEADER).read_bytes() != header(bundle.directory / MODEL, settings.symbol).encode():
            raise BundleError(f"{bundle.directory / HEADER} does not hold the model beside it: copy the bundle again")

    def open(self, artifact: Artifact) -> TracedSession:
        return TracedSession(artifact.path)

    def versions(self) -> Mapping[str, str]:
        return {"c-header": "1.0"}


def header(model: Path, symbol: str) -> str:
    return f"static const unsigned char {symbol}[] = {{{','.join(map(str, model.read_bytes()))}}};\n"
