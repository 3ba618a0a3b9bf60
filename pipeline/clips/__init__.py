"""Training on trimmed clips, which `pretrain` and `bsp-synth` share."""
