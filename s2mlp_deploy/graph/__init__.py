"""ONNX graphs, built from weights: the builder, the lowerings of the shift, the mean over positions, heads and tails.

Read builder.py first, then spatial_shift/.
"""
