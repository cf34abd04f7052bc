"""Quantization methods, one file each, and the decision which layers a method leaves alone."""
