"""Features to detections, by a trained head; what `localize` and `predict` share."""
