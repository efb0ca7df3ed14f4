"""The ground floor, which knows nothing of the product: errors, progress, random streams, the hub, ranges, machine."""
