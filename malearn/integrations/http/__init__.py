"""The HTTP interface: predictions for schedulers that are not Python.

`app.create` makes the ASGI application around a predictor, `server.run` serves it. It speaks what
earlier Maze products spoke (`/predict`, `/collect_data`), and the same for batches and workflows.
"""
