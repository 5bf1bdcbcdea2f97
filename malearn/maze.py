"""malearn inside Maze: `malearn.maze.install()`, or `python -m malearn.maze start --head …`.

Example::

    from malearn import maze

    maze.install()  # before maze.core.server is imported
"""

from __future__ import annotations

from malearn.integrations.maze import Adapter, install, main, uninstall

__all__ = ["Adapter", "install", "main", "uninstall"]

if __name__ == "__main__":
    main()
