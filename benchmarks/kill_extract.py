"""Kills `pipeline extract` at random moments and looks whether the store ends up as if nothing had happened.

    python benchmarks/kill_extract.py [--kills 20] [--encoder tsm_tiny] [--seed 0]

The moments are uniform over the time that the command takes, its start included. A run that is done before it is
killed is compared with an uninterrupted one, byte for byte, and the next begins a new store.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.command_line import script_parser
from benchmarks.videos import loop_packets, write_video
from pipeline.options.packaged import ROOT


def main() -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--encoder", default="tsm_tiny")
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder, whole, killed = Path(name) / "videos", Path(name) / "whole", Path(name) / "killed"
        folder.mkdir()
        for index in range(options.videos):
            clip = write_video(Path(name) / "clip.mp4", seconds=4, seed=index)
            loop_packets(clip, folder / f"v{index:02}.mp4", seconds=20 + 4 * (index % 5))
        started = time.monotonic()
        start(folder, whole, options.encoder).wait()
        duration = time.monotonic() - started
        expected, kills, finished, differing = contents(whole), 0, 0, 0
        while kills < options.kills:
            process = start(folder, killed, options.encoder)
            try:
                process.wait(moments.uniform(0, duration))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
                print(f"kill {kills}: {describe(killed)}", flush=True)
            process.wait()
            if process.returncode == 0 or kills == options.kills:
                start(folder, killed, options.encoder).wait()
                finished += 1
                differing += contents(killed) != expected
                shutil.rmtree(killed)
    print(
        f"{kills} kills, {finished} stores finished after them, {differing} of these differ from an uninterrupted one"
    )
    return 1 if differing else 0


def start(folder: Path, store: Path, encoder: str) -> subprocess.Popen[bytes]:
    words = ["extract", "--videos", str(folder), "--out", str(store), "--encoder", encoder, "--weights", "random"]
    return subprocess.Popen([sys.executable, "-m", "pipeline.cli", *words], cwd=ROOT, stderr=subprocess.DEVNULL)


def contents(store: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in store.iterdir()}


def describe(store: Path) -> str:
    if not store.is_dir():
        return "no store yet"
    return f"{len(list(store.glob('*.npy')))} features, {len(list(store.glob('*.part')))} half-written files"


if __name__ == "__main__":
    sys.exit(main())
