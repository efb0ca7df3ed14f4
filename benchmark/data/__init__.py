"""Records, sources, prepared images and the loader."""
