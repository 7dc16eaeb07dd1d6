"""The step nothing is published without: references, golden tensors, checks."""
