"""The parts every screen is put together from, one file each."""
