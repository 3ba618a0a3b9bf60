"""Detections of a file, in the shape that tests compare."""

from dataclasses import replace
from pathlib import Path

from pipeline.data.detections import Detection, Detections


def found_in(path: Path) -> dict[str, list[Detection]]:
    """What a detections JSON says of each video, without its id in each detection."""
    return {
        video_id: [replace(detection, video="") for detection in found]
        for video_id, found in Detections.from_json(path).by_video().items()
    }
