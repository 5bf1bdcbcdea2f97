"""Prefect flows, and the command line that starts them: wiring, retries, logging, artifacts.

What they do is done in `malearn` and `expectations`; here it is put in order.
Importing this package imports nothing; each module imports Prefect when it is.
"""
