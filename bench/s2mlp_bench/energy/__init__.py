"""Conditions of a device: power, energy, clocks, heat and throttling."""
