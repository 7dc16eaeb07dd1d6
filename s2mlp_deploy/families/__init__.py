"""Kinds of networks, one folder each: spec, layouts, reference module and emission."""
