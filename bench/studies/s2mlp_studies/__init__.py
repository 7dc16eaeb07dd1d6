"""The measurements behind docs/benchmarks.md, for developers of this project; a wheel does not contain them.

``python -m s2mlp_studies.presets`` measures every part, a package of this folder each (part.py), ``python -m s2mlp_studies.scale`` how the cost of
one checkpoint grows.
"""
