"""`pipeline merge-features`."""
