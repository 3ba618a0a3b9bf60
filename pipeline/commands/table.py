"""Every command by the word that calls it: what it can be told, and where its work is done.

This module imports neither torch nor a stage, so that help and mistyped flags answer at once; a command's own module,
and with it torch, is imported when the command runs.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from pipeline.commands.analyze.options import AnalyzeConfig
from pipeline.commands.bsp_synth.options import BspConfig
from pipeline.commands.demo.options import DemoConfig
from pipeline.commands.describe.options import DescribeConfig
from pipeline.commands.evaluate.options import EvaluateConfig
from pipeline.commands.extract.options import ExtractConfig
from pipeline.commands.import_features.options import ImportFeaturesConfig
from pipeline.commands.localize.options import LocalizeConfig
from pipeline.commands.lofi_train.options import LofiTrainConfig
from pipeline.commands.merge_features.options import MergeFeaturesConfig
from pipeline.commands.predict.options import PredictConfig
from pipeline.commands.pretrain.options import PretrainConfig
from pipeline.commands.sola.options import SolaConfig
from pipeline.terminal.outcome import Outcome


class Command(NamedTuple):
    """What a word on the command line stands for."""

    folder: str  # below `pipeline/commands/`; also what the Python function is called
    options: type[Any]
    positional: str | None = None  # the field that is given without a flag

    @property
    def run(self) -> Callable[[Any], Outcome]:
        """The command's `run(options)`."""
        # Read when torch is loaded. By default OpenMP's threads wait for each other by spinning, and where anything
        # else wants a core, be it our own decoding process, training on two cores then takes eight times as long as on
        # one.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        module = importlib.import_module(f"pipeline.commands.{self.folder}.command")
        return cast("Callable[[Any], Outcome]", module.run)


COMMANDS = {
    "demo": Command("demo", DemoConfig),
    "extract": Command("extract", ExtractConfig),
    "pretrain": Command("pretrain", PretrainConfig),
    "bsp-synth": Command("bsp_synth", BspConfig),
    "lofi-train": Command("lofi_train", LofiTrainConfig),
    "sola": Command("sola", SolaConfig),
    "localize": Command("localize", LocalizeConfig),
    "predict": Command("predict", PredictConfig, positional="video"),
    "evaluate": Command("evaluate", EvaluateConfig),
    "analyze": Command("analyze", AnalyzeConfig),
    "describe": Command("describe", DescribeConfig, positional="path"),
    "import-features": Command("import_features", ImportFeaturesConfig),
    "merge-features": Command("merge_features", MergeFeaturesConfig, positional="stores"),
}
