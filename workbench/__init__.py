"""The workbench: the command line, the checks before a load, the diagnosis after it, and the terminal screens."""
