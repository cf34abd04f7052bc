"""Reference kernels in plain torch, one operation a file, each an operator in the namespace `native`."""
