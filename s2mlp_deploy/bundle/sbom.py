"""Write a software bill of materials (CycloneDX 1.6) into a bundle, for ``--sbom``.

It names the bundle's files and the checkpoint that they came from, by SHA-256, and every package that had a part in
them: this one, those that the manifest lists, the runtime that checked the numbers, and all that these require. The
same versions give the same bytes: it holds no time, no serial number, no path and no host.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.contrib.this.builders import this_component
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from s2mlp_deploy.bundle.contents import SBOM
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.spec import Spec
from s2mlp_deploy.system.dependencies import Shipped, closure, owners
from s2mlp_deploy.system.hashing import sha256


def add(manifest: Manifest, directory: Path, *, modules: Sequence[str], others: Sequence[Shipped]) -> Manifest:
    """Write the SBOM of the bundle that is put together in ``directory``; its ``manifest``, with the SBOM's hash.

    ``modules`` are imported to run the artifact, ``others`` are packages that lie in it.
    """
    text = JsonV1Dot6(_bom(manifest, modules, others)).output_as_string(indent=2)
    (directory / SBOM).write_text(text + "\n", "utf-8")
    files = {**manifest.files, SBOM: sha256(directory / SBOM)}
    return manifest.model_copy(update={"files": dict(sorted(files.items()))})


def _bom(manifest: Manifest, modules: Sequence[str], others: Sequence[Shipped]) -> Bom:
    runtime = (owner for module in modules for owner in owners(module))
    roots = dict.fromkeys(["s2mlp-deploy", *runtime]) | manifest.versions
    packages = closure(roots)
    components = {name: _component("pypi", name, p.version, p.licenses) for name, p in packages.items()}
    shipped = [_component(p.kind, p.name, p.version, (p.license,)) for p in others]
    bundle = _bundle(manifest)
    bom = Bom(
        components=[*components.values(), *shipped],
        metadata=BomMetaData(
            component=bundle,
            tools=ToolRepository(components=[this_component()]),
            properties=[Property(name="cdx:reproducible", value="true")],
        ),
    )
    bom.register_dependency(bundle, [*(components[name] for name in roots if name in components), *shipped])
    for name, package in packages.items():
        bom.register_dependency(components[name], [components[other] for other in package.requires])
    # The library's model wants both; the format does not, and they would differ from run to run.
    bom.serial_number = None  # type: ignore[assignment]
    bom.metadata.timestamp = None  # type: ignore[assignment]
    return bom


def _component(kind: str, name: str, version: str, licenses: tuple[str, ...]) -> Component:
    purl = PackageURL(kind, None, name, version)
    return Component(
        name=name,
        version=version,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=_declared(licenses),
    )


def _declared(licenses: tuple[str, ...]) -> list[License]:
    """The format wants one SPDX expression or several names, never both."""
    factory, declared = LicenseFactory(), LicenseAcknowledgement.DECLARED
    if len(licenses) == 1:
        return [factory.make_from_string(licenses[0], license_acknowledgement=declared)]
    return [factory.make_with_name(name, acknowledgement=declared) for name in licenses]


def _bundle(manifest: Manifest) -> Component:
    """The component that the SBOM describes: the files of a bundle, made from a checkpoint."""
    kind = ComponentType.MACHINE_LEARNING_MODEL
    facts = {"format": manifest.format, "precision": manifest.precision, "shift": manifest.spec.semantics or "none"}
    checkpoint = Component(type=kind, name="checkpoint", bom_ref="checkpoint", hashes=[_hash(manifest.source.sha256)])
    return Component(
        type=kind,
        name=family_of(manifest.spec).title if isinstance(manifest.spec, Spec) else "ONNX network",
        bom_ref="bundle",
        properties=[Property(name=f"s2mlp-deploy:{name}", value=value) for name, value in facts.items()],
        pedigree=Pedigree(ancestors=[checkpoint]),
        components=[
            Component(type=ComponentType.FILE, name=name, bom_ref=f"file:{name}", hashes=[_hash(digest)])
            for name, digest in manifest.files.items()
        ],
    )


def _hash(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)
