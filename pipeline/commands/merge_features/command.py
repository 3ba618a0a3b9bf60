"""`pipeline merge-features`: stores of the same videos to one store, whose rows hold the channels of all of them.

    STORE_A (T, C1) ─┐
    STORE_B (T, C2) ─┴──▶ STORE (T, C1 + C2), with the encoders of both

Two-stream networks (RGB and flow), or encoders trained for different tasks. The rows of a video must stand for the same
seconds in all stores; they are never interpolated. The new store knows all encoders, so that a head trained on it can
start from videos (`pipeline predict`).
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.commands.merge_features.options import MergeFeaturesConfig
from pipeline.data.features import FeatureStore
from pipeline.data.features.outcome import Store
from pipeline.data.features.streams import join_headers, join_streams
from pipeline.data.files import copy_whole, match_ids
from pipeline.terminal.notes import progress, remark
from pipeline.terminal.outcome import Failure, list_failures


def run(config: MergeFeaturesConfig) -> Store:
    """Merge every video that the new store lacks. Those that could not be merged are listed; the others stay.

    Raises:
        ValueError, FileNotFoundError: fewer than two stores, no such store, or no video that is in all of them.
    """
    if len(config.stores) < 2:
        raise ValueError(f"{config.stores[0]}: to merge takes two stores or more; name the others as well")
    stores = [FeatureStore.open(path) for path in config.stores]
    ids_of, failures = _match_videos(stores)
    uneven = []
    with FeatureStore.create_or_resume(config.out, join_headers([store.header for store in stores])) as merged:
        _copy_encoders(stores, merged)
        todo = [video_id for video_id in ids_of if video_id not in merged.videos]
        for video_id in progress(todo, "merging"):
            try:
                lengths = _merge(video_id, ids_of[video_id], stores, merged)
            except ValueError as error:
                failures.append(Failure(video_id, str(error)))
            else:
                uneven += [f"{video_id}: {lengths}"] if len(set(lengths)) > 1 else []
    _report(merged, len(ids_of), uneven, failures)
    return Store(path=config.out, failed=tuple(failures))


def _match_videos(stores: Sequence[FeatureStore]) -> tuple[dict[str, list[str]], list[Failure]]:
    """For each video of the first store its id in every store; and what is said of videos that a store lacks."""
    matches = [match_ids(stores[0].videos, store.videos) for store in stores]
    ids_of = {
        video_id: [match[video_id] for match in matches]
        for video_id in stores[0].videos
        if all(video_id in match for match in matches)
    }
    if not ids_of:
        raise ValueError(f"no video is in all of {', '.join(str(store.path) for store in stores)}")
    lacking = [
        Failure(video_id, f"{store.path} has no features of it")
        for store, match in zip(stores, matches, strict=True)
        for video_id in stores[0].videos
        if video_id not in match
    ]
    surplus = {
        video_id
        for store, match in zip(stores, matches, strict=True)
        for video_id in store.videos.keys() - match.values()
    }
    return ids_of, lacking + [
        Failure(video_id, f"{stores[0].path} has no features of it") for video_id in sorted(surplus)
    ]


def _merge(video_id: str, ids: Sequence[str], stores: Sequence[FeatureStore], merged: FeatureStore) -> list[int]:
    """Add one video to the merged store; returns its rows in each of the others."""
    videos = [store.videos[other_id] for store, other_id in zip(stores, ids, strict=True)]
    streams = [store.load(other_id) for store, other_id in zip(stores, ids, strict=True)]
    features_TC, timeline = join_streams(streams, [video.timeline for video in videos])
    merged.add(video_id, features_TC, timeline, videos[0].duration)
    return [video.rows for video in videos]


def _copy_encoders(stores: Sequence[FeatureStore], merged: FeatureStore) -> None:
    weights = [store.path / name for store in stores for name in store.header.encoder_files]
    for source, name in zip(weights, merged.header.encoder_files, strict=True):
        if source.exists() and not (merged.path / name).exists():
            copy_whole(source, merged.path / name)


def _report(merged: FeatureStore, num_common: int, uneven: Sequence[str], failures: Sequence[Failure]) -> None:
    remark(f"{len(merged.videos)} of {num_common} videos are in {merged.path}")
    if uneven:
        remark(
            f"note: videos with a row or two more in one store than in another: {len(uneven)}, such as {uneven[0]}; "
            "the shorter one counts"
        )
    list_failures(f"{len(failures)} videos could not be merged:", failures)
