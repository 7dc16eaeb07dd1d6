"""Entry points of the commands, which load nothing before they can be interrupted."""

from __future__ import annotations

from s2mlp_deploy.interruption import entered

inspect = entered("s2mlp_deploy.cli", "inspect_main")
export = entered("s2mlp_deploy.cli", "export_main")
verify = entered("s2mlp_deploy.cli", "verify_main")
doctor = entered("s2mlp_deploy.cli", "doctor_main")
