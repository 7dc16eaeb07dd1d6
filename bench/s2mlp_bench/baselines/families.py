"""The families in other hands: the PyTorch code that a family's weights run in, and where their graph keeps them.

A baseline that a family does not offer is refused in :mod:`s2mlp_bench.baselines.registry`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.families.mixer.spec import MixerSpec
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.families.s2mlp.family import S2MLPFamily
from s2mlp_deploy.families.s2mlp_v2.family import S2MLPv2Family
from s2mlp_deploy.families.staged import layers
from s2mlp_deploy.families.staged.family import StagedFamily
from s2mlp_deploy.families.staged.spec import StagedSpec
from s2mlp_deploy.schema.spec import Spec

if TYPE_CHECKING:
    from s2mlp_deploy.families.reference import ReferenceModel
    from s2mlp_deploy.families.shift_reference import ShiftFunction

S = TypeVar("S", bound=Spec)

STAGED: dict[str, StagedFamily[Any]] = {family.name: family for family in (S2MLPFamily(), S2MLPv2Family())}
"""The families of :class:`StagedCode`."""


class FamilyCode(ABC, Generic[S]):
    """One family, as baselines run it."""

    @abstractmethod
    def module(self, spec: S, shift: ShiftFunction) -> ReferenceModel:
        """The PyTorch module of ``spec`` that calls ``shift`` for each of its shifts."""

    def initializer_name(self, parameter: str) -> str:
        """The name in the graph of the parameter with this canonical name."""
        return parameter

    def with_biases(self, spec: S, biased: frozenset[str] | None) -> S:
        """``spec`` with a bias in the layers called ``biased``, in all where None; as it is where the family leaves no choice."""
        return spec


class StagedCode(FamilyCode[StagedSpec]):
    """S²-MLP and S²-MLPv2: stages of blocks with a shift."""

    def module(self, spec: StagedSpec, shift: ShiftFunction) -> ReferenceModel:
        return STAGED[spec.family].model_type()(spec, shift)

    def initializer_name(self, parameter: str) -> str:
        return layers.initializer_name(parameter)

    def with_biases(self, spec: StagedSpec, biased: frozenset[str] | None) -> StagedSpec:
        return replace(spec, biases=frozenset(spec.layers) if biased is None else biased)


class MixerCode(FamilyCode[MixerSpec]):
    """MLP-Mixer, which has no shift."""

    def module(self, spec: MixerSpec, shift: ShiftFunction) -> ReferenceModel:
        from s2mlp_deploy.families.mixer.reference import Mixer

        return Mixer(spec)


CODES: dict[str, FamilyCode[Any]] = {**dict.fromkeys(STAGED, StagedCode()), MixerSpec.family: MixerCode()}
"""By the name of the family."""


def code_of(spec: Spec) -> FamilyCode[Any]:
    """The code of the family that ``spec`` belongs to.

    Raises:
        UsageError: where baselines do not know the family.
    """
    if spec.family not in CODES:
        known = ", ".join(CODES)
        raise UsageError(
            f"baselines do not know networks of the family {family_of(spec).title}: leave out --baseline, or give a bundle of "
            f"one of {known}"
        )
    return CODES[spec.family]
