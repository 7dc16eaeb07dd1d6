"""Engines of TensorRT for RTX, built on a CPU: their cost, size and kernels."""
