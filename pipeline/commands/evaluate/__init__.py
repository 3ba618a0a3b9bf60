"""`pipeline evaluate`."""
