"""A session in one file, to be carried away from the machine on which it was recorded."""
