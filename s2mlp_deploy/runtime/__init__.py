"""Sessions: artifacts that are loaded and can be run.

session.py defines the protocols that every runtime implements (read it first); onnxruntime.py implements them for ONNX
Runtime, cuda_session.py for its CUDA provider; opening.py picks one by the provider.
"""
