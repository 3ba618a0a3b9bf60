"""`pipeline import-features`."""
