"""Replay: from a recorded load to the same load run again, and what of it came out differently."""
