"""Checkpoints on disk: finding the files, checking their headers, reading and synthesizing tensors."""
