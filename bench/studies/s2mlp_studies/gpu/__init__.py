"""A GPU in six minutes: its tests, the parity of every lowering and precision, and a short race against PyTorch. Read measure.py first."""
