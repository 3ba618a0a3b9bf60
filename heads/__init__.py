"""Networks on feature sequences (B, C, T), chosen by name; each brings its targets, its loss and its decoding.

Positions are in rows: a window of T rows spans [0, T].
"""

from heads.gtad import GTAD

HEADS = {"gtad": GTAD}
