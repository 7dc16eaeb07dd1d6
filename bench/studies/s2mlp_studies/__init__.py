"""The measurements behind docs/benchmarks.md, for developers of this project; a wheel does not contain them.

``python -m s2mlp_studies.presets`` measures S²-MLP-wide and -deep, ``python -m s2mlp_studies.scale`` how a checkpoint's cost grows.
"""
