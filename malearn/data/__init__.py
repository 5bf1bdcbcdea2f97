"""Execution logs in, datasets out: sources, Delta tables, quarantine, retention."""
