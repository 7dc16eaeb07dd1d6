"""Bundles: directories with an artifact, its manifest and its golden tensors, published whole or not at all.

Read contents.py first, then read.py and staging.py.
"""
