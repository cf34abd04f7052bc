"""Engine adapters: how each engine is launched and where its stages can be seen; standard library only."""
