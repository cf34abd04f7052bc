"""The parts of `loadscope attach`: to a session here, to a host behind a port, to a process that runs already."""
