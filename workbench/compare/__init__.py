"""Compares what two runs computed: capture, pairing, metrics and verdict, each apart from the others."""
