"""The bound of a bundle: its matrix products alone, with the same shapes and types.

On a processor they are a twin of the graph in the same runtime, with the same session options; on a GPU, where every runtime
calls libraries of NVIDIA's, they are those of cuBLAS in one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
from onnx_ir.passes.common import ShapeInferencePass

from s2mlp_bench.backends import ProductsBackend
from s2mlp_bench.baselines.noshift import NoShift
from s2mlp_bench.candidate import Candidate, Point
from s2mlp_bench.pytorch.place import no_gpu
from s2mlp_bench.pytorch.products import TorchProducts, float_type, shapes_of
from s2mlp_bench.roofline.products import products
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.graph import writer
from s2mlp_deploy.graph.lowered import Axes, Lowered
from s2mlp_deploy.passes.quantize import Quantize
from s2mlp_deploy.passes.recipe import RECIPES, Range
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.precision import Arithmetic
from s2mlp_deploy.schema.precision import precision as row_of
from s2mlp_deploy.schema.spec import Spec
from s2mlp_deploy.system import memory

FORMATS = ("onnx", "ort")
"""The formats that ONNX Runtime runs."""

CUDA = "cuda"
"""The provider under which PyTorch runs on a GPU, whatever runs the bundle."""

_ANY_RANGE = Range(-4.0, 4.0)


@dataclass(frozen=True)
class ProductTypes:
    """The types of a bundle's products. int8 is rounded as the recipe ``target`` has it, but for ``float_layers``."""

    precision: str
    arithmetic: Arithmetic
    target: str | None = None
    float_layers: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> ProductTypes:
        """Those of the bundle of ``manifest``."""
        arithmetic = row_of(manifest.precision).read(manifest.arithmetic)
        if manifest.quantization is None:
            return cls(manifest.precision, arithmetic)
        return cls(manifest.precision, arithmetic, manifest.quantization.target, manifest.quantization.float_layers)

    @property
    def in_float32(self) -> bool:
        """Whether float32 is multiplied; weights may be smaller in the file."""
        return not self.arithmetic.rounds or self.arithmetic.widens_weights


def bound_of(candidate: Candidate, manifest: Manifest, scratch: Path) -> Candidate | None:
    """The bound of a bundle, its file in ``scratch``; None where the products of its runtime or type cannot be run alone, or it
    has no blocks."""
    spec = manifest.spec
    if not isinstance(spec, Spec) or not spec.depth:
        return None
    backend = (
        _on_gpu(spec, candidate, manifest) if candidate.device == "gpu" else _in_twin(candidate, manifest, scratch)
    )
    if backend is None:
        return None
    return Candidate(
        f"{candidate.source}, products alone",
        "bound",
        backend,
        candidate.point if candidate.device == "cpu" else replace(candidate.point, provider=CUDA),
        candidate.precision,
        block_macs(spec, candidate.point),
        None,
        "matrix products alone",
        candidate.name,
        candidate.golden_bundle,
    )


def _in_twin(candidate: Candidate, manifest: Manifest, scratch: Path) -> ProductsBackend | None:
    if manifest.format not in FORMATS:
        return None
    return ProductsBackend(write_products(manifest, candidate.point, scratch))


def _on_gpu(spec: Spec, candidate: Candidate, manifest: Manifest) -> TorchProducts | None:
    dtype = float_type(ProductTypes.of(manifest).arithmetic)
    if dtype is None or find_spec("torch") is None or no_gpu():
        return None
    return TorchProducts(shapes_of(spec, candidate.point), dtype)


def write_products(manifest: Manifest, point: Point, scratch: Path) -> Path:
    """A new file in ``scratch`` with the products of a bundle at ``point``."""
    path = scratch / f"products{len(list(scratch.iterdir()))}.onnx"
    write_twin(manifest.classifier, point, ProductTypes.of(manifest), path)
    memory.release()  # of weights as large as the model's
    return path


def block_macs(spec: Spec, point: Point) -> int:
    """Multiply-adds of the blocks' products for one image."""
    return sum(product.macs for product in spec.products(point.size))


def write_twin(spec: Spec, point: Point, types: ProductTypes, path: Path) -> None:
    """Write the products of ``spec`` with these ``types`` to ``path``.

    Weights are random: how long a product takes does not depend on them.
    """
    rounding, target, float_layers = types.arithmetic.rounding, types.target, types.float_layers
    family, axes = family_of(spec), Axes(point.batch, point.size or spec.image_size)
    model = ShapeInferencePass()(family.emit(spec, _random_weights(spec), NoShift(), axes)).model
    if rounding:
        model = run_passes(model, resolve_name(rounding)())
    elif target is not None:
        layers = [layer for layer in family.block_layers(spec) if layer.name not in float_layers]
        ranges = dict.fromkeys(RECIPES[target].values(layers), _ANY_RANGE)
        model = run_passes(model, Quantize(ranges, RECIPES[target], layers))
    writer.write(products(Lowered(model, spec, axes, NoShift.name, types.precision)).model, path)


def _random_weights(spec: Spec) -> Mapping[str, Array]:
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5)
        for name, shape in spec.parameter_shapes().items()
    }
