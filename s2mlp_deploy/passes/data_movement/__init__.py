"""Write subgraphs that only move data, from whatever exporter, as the plainest operators that move the same elements.

Read repair.py first.
"""

from s2mlp_deploy.passes.data_movement.repair import repair
from s2mlp_deploy.passes.data_movement.repair_result import LeftAlone, Region, Repair, Statement

__all__ = ["LeftAlone", "Region", "Repair", "Statement", "repair"]
