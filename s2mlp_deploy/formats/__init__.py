"""Formats: the base class, the registry, and the inspection of artifacts before they are loaded."""
