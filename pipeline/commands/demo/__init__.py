"""`pipeline demo`."""
