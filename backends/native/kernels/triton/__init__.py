"""Triton alternatives of reference kernels, one operation a file; importing a file imports triton."""
