"""`pipeline predict`."""
