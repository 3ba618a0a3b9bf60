"""Feature stores, and the files of others that become ones."""

from pipeline.data.features.store import (
    ENCODER_WEIGHTS,
    MANIFEST,
    SOLA_WEIGHTS,
    FeatureStore,
    StoredVideo,
    StoreHeader,
    load_finite,
    rescale_bins,
    rescale_linear,
    take_rows,
)

__all__ = [
    "ENCODER_WEIGHTS",
    "MANIFEST",
    "SOLA_WEIGHTS",
    "FeatureStore",
    "StoreHeader",
    "StoredVideo",
    "load_finite",
    "rescale_bins",
    "rescale_linear",
    "take_rows",
]
