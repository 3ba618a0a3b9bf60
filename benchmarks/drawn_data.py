"""Procedural videos, and the encoder that classifies their clips, where every method starts.

    OUT/data/            trimmed clips and untrimmed videos (`synth.scenes`)
    OUT/classification/  the encoder (ACP), and its features of the untrimmed videos

Encoders and features come from the demo's configs. What is in OUT already is not made again.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import pipeline
from synth.scenes import SIZES, write_dataset

HEAD_CONFIG = "demo/localize"


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """`out`, `--size` and `--seed`."""
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=[*SIZES], default="ablation")
    parser.add_argument("--seed", type=int, default=0, help="of the procedural data and of its encoders' training")


@dataclass(frozen=True)
class DrawnData:
    """The folder OUT, the seed of the data and of the encoder, and how long encoders learn to classify."""

    out: Path
    seed: int
    clip_epochs: int = 30

    @property
    def clips(self) -> Path:
        return self.out / "data" / "trimmed" / "clips.csv"

    @property
    def videos(self) -> Path:
        return self.out / "data" / "untrimmed" / "videos"

    @property
    def annotations(self) -> Path:
        return self.out / "data" / "untrimmed" / "annotations.json"

    def draw(self, size: str) -> None:
        """Draw clips and videos, unless they are there."""
        if not self.annotations.exists():  # the last file that is written
            write_dataset(self.out / "data", size=size, seed=self.seed)

    def classification_encoder(self) -> Path:
        """Run folder of the encoder where every method starts."""
        return self.train_on_clips(self.out / "classification" / "encoder", self.seed)

    def classification_features(self) -> Path:
        """Its features of the untrimmed videos."""
        return self.extract_features(self.out / "classification", self.classification_encoder())

    def train_on_clips(self, out: Path, seed: int) -> Path:
        """Run folder of an encoder that classifies the trimmed clips."""
        training = {"seed": seed, "epochs": self.clip_epochs}
        pipeline.pretrain(config="demo/pretrain", clips=self.clips, out=out, training=training, progress=True)
        return out

    def extract_features(self, folder: Path, weights: str | os.PathLike[str]) -> Path:
        """Feature store of the untrimmed videos, `folder`/features."""
        out = folder / "features"
        pipeline.extract(config="demo/extract", videos=self.videos, out=out, weights=weights, progress=True)
        return out
