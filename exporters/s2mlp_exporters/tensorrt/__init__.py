"""Shared by ``--format trt`` and ``--format trt-rtx``: TensorRT and TensorRT for RTX are one API under two names."""
