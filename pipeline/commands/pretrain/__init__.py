"""`pipeline pretrain`."""
