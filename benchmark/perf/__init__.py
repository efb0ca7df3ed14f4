"""Speed and memory, measured beside a peer that does the same work."""
