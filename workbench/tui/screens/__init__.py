"""Whole screens: the start, the workbench itself, and the pages laid over it."""
