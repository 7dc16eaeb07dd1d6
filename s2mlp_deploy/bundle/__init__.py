"""Bundles: directories that are published whole or not at all."""
