"""MLP-Mixer: its spec, reference module and graph. Checkpoints of it are not exported: the benchmark times it."""
