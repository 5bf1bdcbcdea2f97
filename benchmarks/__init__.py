"""Figures that say how fast and how good, each beside its target."""
