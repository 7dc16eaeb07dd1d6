"""Kinds of networks, one folder each: spec, layouts, reference module and emission.

Read base.py (everything that a family provides) first, then s2mlp/. The other modules hold what families share.
"""
