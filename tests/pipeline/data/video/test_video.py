"""Frames by index: the right ones, on files where common readers give wrong ones, and clear errors on broken files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from video_files import copy_packets, overwrite_packets, read_index, read_indices, write_sound, write_video

from pipeline.data.video import VideoError, VideoInfo, probe_video, read_clip, read_frames
from pipeline.data.video import frames as video
from pipeline.data.video import packets as packets_module
from pipeline.data.video.pictures import PictureMaker, PictureSize

N = 60
OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0"}
B_FRAMES = {"bf": "2", "g": "12"}

# Every tenth frame is a keyframe, so that damage heals soon.
EVERY_TENTH = {"x264-params": "keyint=10:min-keyint=10:scenecut=0:bframes=0"}
SCALED_TOLERANCE = 10  # of 255

# name: suffix, codec, encoder options
KINDS = {
    "h264": ("mp4", "libx264", {}),
    "open-gop": ("mp4", "libx264", OPEN_GOP),
    "open-gop-mkv": ("mkv", "libx264", OPEN_GOP),
    "open-gop-ts": ("ts", "libx264", OPEN_GOP),
    "h264-avi": ("avi", "libx264", OPEN_GOP),  # AVI has no presentation times, and the codec reorders
    "mpeg4-avi": ("avi", "mpeg4", B_FRAMES),
    "mpeg4-mp4": ("mp4", "mpeg4", B_FRAMES),
    "mpeg2-ps": ("mpg", "mpeg2video", B_FRAMES),
    "vp8": ("webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
    "hevc": ("mp4", "libx265", {"x265-params": "keyint=12:open-gop=1:bframes=3:log-level=none"}),
}

Make = Callable[[str], Path]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The video of a kind, written once."""
    folder = tmp_path_factory.mktemp("videos")

    def make_kind(kind: str) -> Path:
        suffix, codec, options = KINDS[kind]
        path = folder / f"{kind}.{suffix}"
        return path if path.exists() else write_video(path, N, codec=codec, options=options)

    return make_kind


@pytest.fixture
def plain(make: Make) -> Path:
    return make("h264")


def _all_by_clips(path: Path, info: VideoInfo) -> list[int]:
    return [read_index(read_clip(path, [index], info=info)[0]) for index in range(info.num_frames)]


# --- The right frames -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_is_found_in_one_pass_and_at_random(make: Make, kind: str) -> None:
    path = make(kind)
    info = probe_video(path)
    assert info.num_frames == N
    np.testing.assert_allclose(info.timestamps, np.arange(N) / 25, atol=1e-6)
    assert info.duration == pytest.approx(N / 25)
    assert info.fps == pytest.approx(25)
    for decoder in ("pyav", "auto"):
        assert read_indices(list(read_frames(path, range(N), decoder=decoder))) == list(range(N))
        assert read_indices(list(read_frames(path, range(3, N, 7), decoder=decoder))) == list(range(3, N, 7))
    assert _all_by_clips(path, info) == list(range(N))
    assert read_indices(read_clip(path, [50, 3, 3, 49, 20, 4])) == [50, 3, 3, 49, 20, 4]


@pytest.mark.parametrize(("first", "next_keyframe"), [(5, 12), (12, 24), (27, 36)])
@pytest.mark.parametrize(
    "kind", ["open-gop", "open-gop-mkv", "open-gop-ts", "h264-avi", "mpeg4-avi", "mpeg4-mp4", "hevc"]
)
def test_a_clip_copied_without_its_keyframe_starts_at_the_next_one(
    make: Make, tmp_path: Path, kind: str, first: int, next_keyframe: int
) -> None:
    """Before it, decoders give nothing (H.264) or grey frames (MPEG-4); leading frames lack what they refer to."""
    source = make(kind)
    path = copy_packets(source, tmp_path / f"cut{source.suffix}", first=first)
    info = probe_video(path)
    expected = list(range(next_keyframe, N))
    assert read_indices(list(read_frames(path, range(info.num_frames)))) == expected
    assert _all_by_clips(path, info) == expected
    np.testing.assert_allclose(info.timestamps, np.arange(len(expected)) / 25, atol=1e-6)


def test_frames_that_an_edit_list_hides_are_not_there(tmp_path: Path) -> None:
    source = write_video(tmp_path / "whole.mp4", N, options={"g": "12", "bf": "0"})
    path = tmp_path / "edited.mp4"
    copy_packets(source, path, first=12, zero=17)
    info = probe_video(path)
    assert read_indices(list(read_frames(path, range(info.num_frames)))) == list(range(17, N))
    assert _all_by_clips(path, info) == list(range(17, N))
    assert info.timestamps[0] == 0
    assert info.duration == pytest.approx((N - 17) / 25)


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    times = np.cumsum([0.0] + [0.02, 0.1, 0.04, 0.5] * 10)
    path = write_video(tmp_path / "vfr.mp4", len(times), timestamps=list(times))
    info = probe_video(path)
    np.testing.assert_allclose(info.timestamps, times, atol=1e-4)
    assert _all_by_clips(path, info) == list(range(len(times)))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_time_zero_is_the_first_frame_of_a_stream_that_starts_late(
    tmp_path: Path, suffix: str, decoder: video.Decoder
) -> None:
    path = write_video(
        tmp_path / f"late.{suffix}", 30, timestamps=[2 + index / 25 for index in range(30)], audio_seconds=3.0
    )
    info = probe_video(path)
    np.testing.assert_allclose(info.timestamps, np.arange(30) / 25, atol=2e-3)  # Matroska rounds to milliseconds
    if decoder == "decord":
        _need_decord()
        decoder = "auto" if suffix == "ts" else "decord"
    assert read_indices(list(read_frames(path, range(30), decoder=decoder))) == list(range(30))


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_frames_are_turned_as_the_file_asks(tmp_path: Path, quarter_turns: int) -> None:
    path = write_video(tmp_path / "turned.mp4", 20, size=(96, 64))
    upright = list(read_frames(path, range(20), decoder="pyav"))
    _write_display_matrix(path, quarter_turns)
    info = probe_video(path)
    assert (info.width, info.height) == ((64, 96) if quarter_turns % 2 else (96, 64))
    turned = list(read_frames(path, range(20)))
    np.testing.assert_array_equal(turned, [np.rot90(picture, quarter_turns) for picture in upright])
    np.testing.assert_array_equal(read_clip(path, range(20)), turned)
    np.testing.assert_array_equal(_need_decord().VideoReader(str(path)).next().asnumpy(), turned[0])
    scaled = next(read_frames(path, [19], resize=32))
    assert read_index(np.rot90(scaled, -quarter_turns)) == 19


def _write_display_matrix(path: Path, quarter_turns: int) -> None:
    """Ask for counter-clockwise turns in the MP4 track header: [a b 0; c d 0; 0 0 1], 16.16 and 2.30 fixed point."""
    a, b = {1: (0, -1), 2: (-1, 0), 3: (0, 1)}[quarter_turns]
    matrix = [a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30]
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + 36] = np.array(matrix, ">i4").tobytes()
    path.write_bytes(content)


@pytest.mark.parametrize(("size", "pix_fmt"), [((67, 49), "yuv444p"), ((64, 64), "yuv420p10le"), ((50, 38), "yuv422p")])
def test_odd_sizes_and_other_pixel_formats(tmp_path: Path, size: tuple[int, int], pix_fmt: str) -> None:
    path = write_video(tmp_path / "odd.mp4", 20, size=size, pix_fmt=pix_fmt)
    for decoder in ("pyav", "auto"):
        frames = list(read_frames(path, range(20), decoder=decoder))
        assert frames[0].shape == (size[1], size[0], 3)
        assert read_indices(frames) == list(range(20))


def test_a_title_that_is_not_utf8_is_no_obstacle(tmp_path: Path) -> None:
    path = write_video(tmp_path / "title.mkv", 10, title="ABCDE")
    content = path.read_bytes()
    assert b"ABCDE" in content
    path.write_bytes(content.replace(b"ABCDE", b"\xe9\xff\xfe\xe8\xf1"))
    assert _all_by_clips(path, probe_video(path)) == list(range(10))


def test_a_file_without_a_duration_has_that_of_its_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "live.mkv", 50, format_options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None
    assert probe_video(path).duration == pytest.approx(2.0)


def test_a_single_frame_lasts_as_long_as_its_frame_rate_says(tmp_path: Path) -> None:
    info = probe_video(write_video(tmp_path / "one.mkv", 1, fps=10))
    assert info.num_frames == 1
    assert info.duration == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["a:b.mp4", "%03d.mp4", "a b#é.mp4"])
def test_file_names_that_could_mean_something_else(tmp_path: Path, plain: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(plain.read_bytes())
    assert read_index(next(read_frames(path, [30]))) == 30


# --- Only what is asked for -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["pyav", "auto"])
def test_a_repeated_index_gives_the_same_array_again(plain: Path, decoder: video.Decoder) -> None:
    frames = list(read_frames(plain, [0, 1, 1, 1, 2], decoder=decoder))
    assert read_indices(frames) == [0, 1, 1, 1, 2]
    assert frames[1] is frames[2] is frames[3]


def test_only_wanted_frames_are_converted(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = []
    original = PictureMaker.__call__

    def counted(self: PictureMaker, frame: av.VideoFrame) -> video.Picture:
        converted.append(frame)
        return original(self, frame)

    monkeypatch.setattr(PictureMaker, "__call__", counted)
    assert read_indices(list(read_frames(plain, [4, 4, 50], decoder="pyav"))) == [4, 4, 50]
    assert len(converted) == 2


def test_frames_stream(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", 500)
    packets = []
    frames = read_frames(
        path, range(500), decoder="pyav", on_progress=lambda: packets.append(1), info=probe_video(path)
    )
    assert read_index(next(frames)) == 0
    assert len(packets) < 100
    assert read_index(next(frames)) == 1


def test_a_clip_of_close_frames_takes_one_seek(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "long.mp4", 500, options=OPEN_GOP)
    info = probe_video(path)
    packets = []
    original = packets_module.read_packets

    def counted(*arguments: Any, **options: Any) -> Iterator[packets_module.VideoPacket]:
        for packet in original(*arguments, **options):
            packets.append(packet)
            yield packet

    monkeypatch.setattr(video, "read_packets", counted)
    assert read_indices(read_clip(path, [431, 435, 439, 443], info=info)) == [431, 435, 439, 443]
    assert len(packets) < 50
    packets.clear()
    assert read_indices(read_clip(path, [2, 490], info=info)) == [2, 490]
    assert len(packets) < 50


@pytest.mark.parametrize("decoder", ["pyav", "auto"])  # decord itself gives 48 columns a fourth channel
@pytest.mark.parametrize(("resize", "crop", "shape"), [(32, None, (32, 48)), (80, 72, (72, 72)), (None, 40, (40, 40))])
def test_sizes(
    tmp_path: Path, decoder: video.Decoder, resize: int | None, crop: int | None, shape: tuple[int, int]
) -> None:
    path = write_video(tmp_path / "wide.mp4", 10, size=(96, 64))
    frames = list(read_frames(path, range(10), resize=resize, crop=crop, decoder=decoder))
    assert [frame.shape for frame in frames] == [(*shape, 3)] * 10
    np.testing.assert_array_equal(read_clip(path, range(10), resize=resize, crop=crop).shape, (10, *shape, 3))
    if crop is None:
        assert read_indices(frames) == list(range(10))


def test_the_crop_is_the_middle(tmp_path: Path) -> None:
    path = write_video(tmp_path / "wide.mp4", 3, size=(96, 64))
    whole, cut = next(read_frames(path, [2])), next(read_frames(path, [2], crop=40))
    np.testing.assert_array_equal(cut, whole[12:52, 28:68])


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), resize=st.integers(1, 1000))
def test_the_short_side_becomes_resize_and_the_long_side_keeps_the_aspect(width: int, height: int, resize: int) -> None:
    size = PictureSize.of(_info(width, height), resize=resize, crop=None)
    assert min(size.width, size.height) == resize
    exact = Fraction(resize, min(width, height))
    for got, side in ((size.width, width), (size.height, height)):
        assert -Fraction(1, 2) <= side * exact - got < Fraction(1, 2)


def _info(width: int, height: int) -> VideoInfo:
    times, none = np.zeros(1), np.zeros(0, np.int64)
    return VideoInfo(Path("v.mp4"), width, height, times, 1.0, none, none, False, 0, "avi")


def test_indices_and_sizes_that_do_not_fit_are_refused(plain: Path) -> None:
    for indices, message in (([0, N], f"frames 0 to {N - 1}"), ([-1], "asked for -1"), ([3, 2], "indices fall")):
        with pytest.raises(ValueError, match=message):
            read_frames(plain, indices)
    with pytest.raises(ValueError, match=r"h264\.mp4: cannot cut 65×65"):
        read_frames(plain, [0], crop=65)
    with pytest.raises(ValueError, match="resize is 0"):
        read_clip(plain, [0], resize=0)
    assert list(read_frames(plain, [])) == []
    assert read_clip(plain, [], crop=32).shape == (0, 32, 32, 3)


# --- Two back ends ----------------------------------------------------------------------------------------------------


def _need_decord() -> Any:
    return pytest.importorskip("decord")


@pytest.mark.parametrize("kind", ["h264", "open-gop", "open-gop-mkv", "mpeg4-mp4", "vp8", "hevc"])
def test_both_back_ends_agree(make: Make, kind: str) -> None:
    """Equal at the video's own size; scaled, their FFmpegs' bilinear filters differ by their rounding."""
    _need_decord()
    path = make(kind)
    whole = list(read_frames(path, range(N), decoder="pyav"))
    np.testing.assert_array_equal(whole, list(read_frames(path, range(N), decoder="decord")))
    scaled = np.array(list(read_frames(path, range(N), resize=40, crop=36, decoder="pyav")), np.int64)
    difference = np.abs(scaled - list(read_frames(path, range(N), resize=40, crop=36, decoder="decord")))
    assert difference.max() <= SCALED_TOLERANCE
    assert difference.mean() <= 1


@pytest.mark.parametrize("kind", ["open-gop-ts", "h264-avi", "mpeg4-avi"])
def test_decord_is_not_used_where_it_is_not_to_be_trusted(make: Make, kind: str) -> None:
    with pytest.raises(VideoError, match="decord is not installed or not right about it; use decoder=auto or pyav"):
        read_frames(make(kind), range(N), decoder="decord")


def test_decord_is_not_used_on_a_clip_of_which_it_reports_too_many_frames(make: Make, tmp_path: Path) -> None:
    path = copy_packets(make("open-gop"), tmp_path / "cut.mp4", first=12)
    assert len(_need_decord().VideoReader(str(path))) == N - 12
    assert probe_video(path).num_frames == N - 24
    with pytest.raises(VideoError, match="decord"):
        read_frames(path, [0], decoder="decord")


def test_auto_keeps_large_files_from_decord_which_would_hold_them_in_memory(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(video, "open_decord", lambda info, size: opened.append(info.path))
    assert read_indices(list(read_frames(plain, range(N)))) == list(range(N))
    assert opened == [plain]
    monkeypatch.setattr(video, "DECORD_MAX_BYTES", plain.stat().st_size - 1)
    assert read_indices(list(read_frames(plain, range(N)))) == list(range(N))
    assert opened == [plain]


def test_without_decord_everything_goes_through_pyav(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    assert read_indices(list(read_frames(plain, range(N)))) == list(range(N))
    with pytest.raises(VideoError, match="decord is not installed"):
        read_frames(plain, range(N), decoder="decord")


# --- Broken files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.mp4", b"", "empty.mp4: the file is empty"),
        ("text.mp4", b"not a video\n" * 100, "text.mp4: cannot be read as a video"),
        ("playlist.mp4", b"#EXTM3U\n#EXTINF:10,\nhttp://localhost/1.ts\n", "playlist.mp4: cannot be read as a video"),
        ("noise.mkv", bytes(range(256)) * 50, "noise.mkv: cannot be read as a video"),
    ],
)
def test_files_that_are_no_videos(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for read in (probe_video, lambda path: read_clip(path, [0]), lambda path: next(read_frames(path, [0]))):
        with pytest.raises(VideoError, match=message):
            read(path)


def test_folders_missing_files_and_sound(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="a folder, not a video file"):
        probe_video(tmp_path)
    with pytest.raises(VideoError, match=r"absent.mp4: no such file"):
        probe_video(tmp_path / "absent.mp4")
    with pytest.raises(VideoError, match=r"sound.m4a: has no video stream \(streams: audio\)"):
        probe_video(write_sound(tmp_path / "sound.m4a", 1.0))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_truncated_file_says_how_much_is_missing(tmp_path: Path, suffix: str) -> None:
    path = write_video(
        tmp_path / f"cut.{suffix}",
        200,
        codec="mpeg4" if suffix == "avi" else "libx264",
        format_options={"movflags": "+faststart"} if suffix == "mp4" else {},
    )
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(VideoError, match=r"breaks off after \d.\d\d s of 8.00 s, \d.\d\d s are missing"):
        probe_video(path)


@pytest.mark.parametrize(("reported", "is_refused"), [(N + 20, False), (N + 40, True)])
def test_a_header_may_report_up_to_a_second_too_much(
    make: Make, tmp_path: Path, reported: int, is_refused: bool
) -> None:
    content = bytearray(make("mpeg4-avi").read_bytes())
    length = content.index(b"strh") + 8 + 32  # dwLength of the stream's header
    assert int.from_bytes(content[length : length + 4], "little") == N
    content[length : length + 4] = reported.to_bytes(4, "little")
    path = tmp_path / "more.avi"
    path.write_bytes(content)
    if is_refused:
        with pytest.raises(VideoError, match=r"breaks off after 2.4\d s of 4.00 s"):
            probe_video(path)
    else:
        assert _all_by_clips(path, probe_video(path)) == list(range(N))


def test_a_stream_without_any_keyframe(make: Make, tmp_path: Path) -> None:
    path = copy_packets(make("h264"), tmp_path / "cut.mp4", first=5)
    with pytest.raises(VideoError, match=r"cut.mp4: not one frame decodes"):
        probe_video(path)


@pytest.mark.parametrize("decoder", ["pyav", "auto"])
def test_a_packet_without_a_picture_shows_the_one_before(tmp_path: Path, decoder: video.Decoder) -> None:
    path = overwrite_packets(write_video(tmp_path / "hurt.mp4", N, options=EVERY_TENTH), range(19, 20))
    assert probe_video(path).num_frames == N
    expected = [*range(19), 18, *range(20, N)]
    assert read_indices(list(read_frames(path, range(N), decoder=decoder))) == expected
    assert _all_by_clips(path, probe_video(path)) == expected


def test_more_than_a_second_without_a_picture_is_damage(tmp_path: Path) -> None:
    path = overwrite_packets(write_video(tmp_path / "hurt.mp4", 100, options=EVERY_TENTH), range(20, 60))
    frames = read_frames(path, range(100), decoder="pyav")
    with pytest.raises(VideoError, match=r"hurt.mp4: no picture decodes at 1.80 s \(frame 45\); the file is damaged"):
        list(frames)
    assert read_indices(read_clip(path, [10, 80])) == [10, 80]
    with pytest.raises(VideoError, match=r"no picture decodes at 2.00 s"):
        read_clip(path, [50])


def test_reading_videos_needs_no_torch() -> None:
    check = "import sys, pipeline.data.video.decoder_process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
