"""The parity gate: reference logits, golden tensors and the checks that every artifact must pass before it is published.

Read gate.py first, then checks.py.
"""
