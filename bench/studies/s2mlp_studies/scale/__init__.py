"""How latency and memory grow with image size, batch and depth: ``python -m s2mlp_studies.scale``."""
