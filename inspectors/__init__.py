"""What enters a host process: the probe and its inspectors, standard library only."""
