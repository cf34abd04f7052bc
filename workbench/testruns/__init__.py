"""Loads that tests make: recorded one by one, kept where a test fails."""
