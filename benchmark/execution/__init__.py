"""Does what a plan says: trains, evaluates, tunes, captions, exports."""
