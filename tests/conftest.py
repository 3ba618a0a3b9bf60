"""What all tests share: one thread for each process, so that pytest-xdist's workers do not fight over the cores."""

import torch

torch.set_num_threads(1)
