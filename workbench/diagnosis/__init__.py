"""Reads a session and says what is wrong: one file is one rule; the verdict orders and links what they find."""
