"""The version of this package, which bundles and graphs record."""

__version__ = "0.2.0"
