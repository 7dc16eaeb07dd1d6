"""The cost of an export as a whole process, beside torch.onnx.export."""
