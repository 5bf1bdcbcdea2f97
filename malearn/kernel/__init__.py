"""What a scheduler's process loads too: declaration, records, history, intervals, errors.

The standard library, numpy and msgspec; nothing of ours outside this package.
"""
