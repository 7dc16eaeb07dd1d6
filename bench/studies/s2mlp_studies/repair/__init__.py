"""The cost of a repair of data movement by ``s2mlp-repair``, and its gain, on networks of the sizes that people deploy."""
