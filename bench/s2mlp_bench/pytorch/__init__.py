"""Networks and matrix products in PyTorch, on a processor or on an NVIDIA GPU."""
