"""How good features and detections are."""
