"""One file a kind of downstream task; importing the package's modules registers them."""
