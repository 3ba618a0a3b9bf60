"""The training loop, its batches, and the run folders that it leaves."""
