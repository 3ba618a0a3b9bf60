"""`pipeline localize`."""
