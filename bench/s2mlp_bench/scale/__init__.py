"""How latency and memory grow with image size, batch and depth: ``s2mlp-bench scale``."""
