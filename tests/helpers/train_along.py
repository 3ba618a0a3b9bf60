"""The second half of a test in `test_training`, as a command: Lightning runs it again for the second process."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    sys.path += [str(ROOT), str(ROOT / "tests" / "pipeline" / "training")]
    from test_training import SGD, train_plain

    run = Path(sys.argv[1])
    torch.set_num_threads(1)
    model, failed = train_plain(run, replace(SGD, batch_size=2, devices=2))
    torch.save(model.state_dict(), run / "model.pt")
    with (run / "left.json").open("a") as file:  # no JSON any more if more than one process comes here
        json.dump({"process": os.environ["LOCAL_RANK"], "failed": failed}, file)
