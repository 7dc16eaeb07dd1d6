"""The repair of an ONNX file's data movement. Read repair.py first."""
