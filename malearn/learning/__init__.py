"""Rows in, models out: families, evaluation, the gate, ONNX export. No MLflow, no disk."""
