"""`pipeline describe`."""
