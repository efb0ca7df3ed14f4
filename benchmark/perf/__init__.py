"""Speed and memory, compared with peer libraries that do the same work."""
