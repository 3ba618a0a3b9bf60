"""`pipeline lofi-train` (LoFi, NeurIPS 2021)."""
