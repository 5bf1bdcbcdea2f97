"""malearn inside a Maze head process: its runtime estimator, and what it observes."""

from __future__ import annotations

from malearn.integrations.maze.adapter import Adapter
from malearn.integrations.maze.command import main
from malearn.integrations.maze.install import install, uninstall

__all__ = ["Adapter", "install", "main", "uninstall"]
