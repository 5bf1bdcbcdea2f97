"""ONNX files: what may be in one, reading, trying and running it."""
