"""Models learnt from the operator's own data, exported for the server. Serving uses nothing of it; it needs torch."""
