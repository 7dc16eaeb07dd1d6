"""The data that bundles record, as types: specs, manifests, precisions, tolerances.

Read spec.py (a network's architecture), then manifest.py (everything about an artifact), then precision.py.
"""
