"""Devices a model can run on: one file each, with what it has, what it lacks and what it allows."""
