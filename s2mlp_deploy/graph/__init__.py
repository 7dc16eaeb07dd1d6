"""Writing ONNX graphs: the builder, ways to express a shift, the mean over positions, heads and tails."""
