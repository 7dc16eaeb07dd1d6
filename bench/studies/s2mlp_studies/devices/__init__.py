"""Runtimes for phones and small boards, beside ONNX Runtime and OpenVINO on the same processor."""
