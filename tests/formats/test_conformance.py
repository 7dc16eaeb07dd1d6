"""Every format that is installed passes the tests that any format must pass."""

from __future__ import annotations

import pytest

from helpers import support
from s2mlp_deploy.formats import conformance, registry


class InThisProcess(conformance.FormatConformance):
    """Runs the commands where the tests run, which spares a start of Python and of torch for each."""

    def run(self, command: str, *arguments: object) -> int:
        return support.run(command, *arguments).code


_MARKS = {"web": [pytest.mark.npm("onnxruntime-web")], "executorch": [pytest.mark.thorough]}

for _name in registry.names():
    _title = f"Test{_name.title().replace('-', '')}"
    _members = {"format": _name, "pytestmark": _MARKS.get(_name, []), "__module__": __name__}
    globals()[_title] = type(_title, (InThisProcess,), _members)


def test_formats_of_this_project_list_the_options_that_they_have() -> None:
    models = registry.built_in_options()
    formats = [registry.find(name) for name in registry.names() if registry.is_built_in(name)]
    assert models == {target.name: target.options for target in formats if target.options.model_fields}
