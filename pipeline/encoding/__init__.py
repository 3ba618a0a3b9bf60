"""Videos to features in memory; what `extract`, `sola` and `predict` share."""
