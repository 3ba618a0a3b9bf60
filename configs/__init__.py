"""One YAML for a dataset, stage and variant, found by its name. No code: nothing imports this package."""
