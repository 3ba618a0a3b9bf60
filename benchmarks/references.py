"""The tests' slow references, to compare with."""

import sys

from pipeline.options.packaged import ROOT

sys.path.append(str(ROOT / "tests" / "helpers"))

from reference_evaluate import mean_average_precision
from reference_gtad import DirectSGAlign, convolution_weight
from reference_gtad import soft_nms as slow_soft_nms

__all__ = ["DirectSGAlign", "convolution_weight", "mean_average_precision", "slow_soft_nms"]
