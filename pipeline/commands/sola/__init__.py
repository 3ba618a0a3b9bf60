"""`pipeline sola` (SoLa, CVPR 2023)."""
