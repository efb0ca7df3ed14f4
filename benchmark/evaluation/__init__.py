"""Evaluation of an encoder: embeddings, metrics, the probe, intervals and tests."""
