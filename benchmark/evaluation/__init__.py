"""From an encoder to numbers: embeddings, metrics, the probe, intervals and tests."""
