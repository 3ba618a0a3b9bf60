"""`pipeline extract`."""
