"""Tensor parallelism inside one process: the group a rank belongs to, and the ranks run in lockstep."""
