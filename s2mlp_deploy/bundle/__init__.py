"""Bundles: directories with an artifact, its manifest and its golden tensors, published whole or not at all.

Read contents.py first (Bundle, Artifact), then read.py (hashes are compared before anything is loaded) and staging.py.
"""
