"""One module for each artifact, found by the entry points in pyproject.toml."""
