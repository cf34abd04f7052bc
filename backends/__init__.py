"""What runs a model: the native stack, and adapters to engines and devices."""
