"""Video files: their frames, and the optical flow between them."""

from pipeline.data.video.frames import (
    Decoder,
    Indices,
    Picture,
    VideoError,
    VideoInfo,
    probe_video,
    read_clip,
    read_frames,
)

__all__ = ["Decoder", "Indices", "Picture", "VideoError", "VideoInfo", "probe_video", "read_clip", "read_frames"]
