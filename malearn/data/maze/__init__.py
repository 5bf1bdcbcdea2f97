"""Maze's run store, read: the files that a Maze head process keeps of every workflow run."""
