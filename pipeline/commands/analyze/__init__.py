"""`pipeline analyze`."""
