"""`pipeline bsp-synth` (BSP, ICCV 2021)."""
