"""What knows nothing of the product: errors, streams of randomness, the hub, ranges of settings, the machine."""
