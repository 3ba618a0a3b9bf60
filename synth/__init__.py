"""Videos and clips that are made, not recorded: for the demo, the tests, and BSP's boundary clips."""
