"""Trimmed clips: lists of them, their frames in batches, and training on them."""
