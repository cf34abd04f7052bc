"""The session reader: what was recorded, merged, paged and folded for whoever asks."""
