"""How weights are stored, one format a file; several quantization methods may declare the same format."""
