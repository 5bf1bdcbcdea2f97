"""`ExecTimePredictor`: learning and predicting in one process, without Redis or a server."""
