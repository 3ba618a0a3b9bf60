"""Workers that leave the main module alone."""

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.data.features import FeatureStore, StoreHeader
from pipeline.data.snippets import Timeline
from pipeline.training.workers import WORKERS

SCRIPT = """
import pipeline
from pathlib import Path
from synth.scenes import write_dataset
from pipeline.training.workers import WORKERS
print("main")
folder = Path({folder!r})
run = pipeline.sola(features=folder / "store", out=folder / "run", steps=2, step=1, tsm_size=4, module={{"hidden": 8}},
                    training={{"num_workers": 2, "batch_size": 2, "device": "cpu"}})
write_dataset(folder / "data", size="tiny", seed=0, context=WORKERS)
print(run.metrics["steps"], len(list((folder / "data" / "untrimmed" / "videos").iterdir())))
"""


def test_a_script_that_trains_at_its_top_level_runs_once(tmp_path: Path) -> None:
    with FeatureStore.create_or_resume(tmp_path / "store", StoreHeader()) as store:
        for number in range(4):
            features_TC = np.random.default_rng(number).normal(size=(30, 6)).astype(np.float32)
            store.add(f"v{number}", features_TC, Timeline(0.0, 1.0, 1.0), 30.0)
    (tmp_path / "script.py").write_text(SCRIPT.format(folder=str(tmp_path)))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "main\n2 10\n"


def test_a_pool_of_workers() -> None:
    with ProcessPoolExecutor(2, mp_context=WORKERS) as pool:
        assert list(pool.map(abs, [-1, -2, 3])) == [1, 2, 3]
