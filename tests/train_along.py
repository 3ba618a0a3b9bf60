"""The second half of a test in `test_training`, as a command: Lightning runs it again for the second process."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))
    from test_training import SGD, train_plain

    run = Path(sys.argv[1])
    torch.set_num_threads(1)
    model = train_plain(run, replace(SGD, batch_size=2, devices=2))
    # No other process than the first comes here.
    torch.save(model.state_dict(), run / "model.pt")
    with (run / "left").open("a") as file:
        file.write(os.environ["LOCAL_RANK"])
