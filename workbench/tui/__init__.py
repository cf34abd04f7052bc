"""The workbench in a terminal: eight questions about one session."""
