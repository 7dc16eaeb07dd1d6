"""Sessions: artifacts that are loaded and can be run."""
