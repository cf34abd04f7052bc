"""The native stack: loads quantized checkpoints as the field's engines do and runs them in plain torch."""
