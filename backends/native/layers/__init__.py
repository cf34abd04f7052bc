"""Layers of the native stack: parallel linears and embeddings, norms, attention, the gated delta net, experts."""
