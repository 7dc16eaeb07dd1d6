"""MLP-Mixer: its reference module, how checkpoints name its weights, and its graph."""
