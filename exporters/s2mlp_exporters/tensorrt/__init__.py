"""What ``--format trt`` and ``--format trt-rtx`` share: TensorRT and TensorRT for RTX are one API under two names."""
