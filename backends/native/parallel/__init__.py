"""Tensor parallelism: the group a rank belongs to, and ranks run in lockstep in one process or one per process."""
