"""Exports of a session; one file is one format and its name is the format's name."""
