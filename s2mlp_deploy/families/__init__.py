"""Kinds of networks."""
