"""Videos: frames by number, sampled as the official code samples them, and moments.

- A video is given to FFmpeg as an open file, never as a name, with an allow-list of formats; FFmpeg may open nothing
  else. Playlists and SDP, which are text, do not come here at all (``sniff``).
- Lengths in headers are not believed: frames are counted by their packets, times are those of the packets.
- A frame that cannot be decoded is left out, and those drawn upon it; a moment in which none can be is an error of
  that moment.
- A video of one frame gives that frame twice: the models take frames in pairs (the official code fails there).
"""

from __future__ import annotations

import bisect
import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from sightline.errors import MediaError
from sightline.media.source import ByteSource, open_source
from sightline.settings import Settings
from sightline.types import Pixels, VideoFrames

FORMATS: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,flv,ogg"
"""The only containers FFmpeg may try."""
CODECS: Final = (
    *("h264", "hevc", "av1", "libdav1d", "libaom-av1", "vp8", "libvpx", "vp9", "libvpx-vp9", "mpeg4", "mpeg2video"),
    *("mpeg1video", "h263", "flv", "mjpeg", "theora", "prores", "dnxhd", "dvvideo", "vc1", "wmv3", "msmpeg4", "ffv1"),
    *("msmpeg4v2", "msmpeg4v1", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "png", "qtrle", "cinepak", "svq3"),
)
"""The only decoders FFmpeg may use: those of files people have. Rare ones are where the holes are (CVE-2026-8461)."""
FRAME_FACTOR: Final = 2
"""Frames are taken in pairs: the models' temporal patch (qwen-vl-utils 0.0.14, FRAME_FACTOR)."""
MIN_FRAMES: Final = 4
"""Fewest frames asked of a video that has them (qwen-vl-utils, FPS_MIN_FRAMES)."""
FRAME_PIXELS: Final = 786_432
"""Most pixels of a frame in a moment: what the official code allows one frame (768 * 32 * 32)."""
SANE_FPS: Final = (0.01, 1000.0)
"""Frame rates believed of a header."""
DOUBTFUL_FRAMES: Final = 600
"""Frames left out behind a damaged one when no key frame comes: twice what encoders put between two at most."""
IO_BYTES: Final = 2**18
"""Bytes FFmpeg reads at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What a video file is, counted and not taken from its header.

    Attributes:
        duration_s: seconds from its start to the end of its last frame.
        fps: mean frames per second.
        num_frames: frames.
        width, height: pixels of a frame, before rotation.
        rotation: degrees counter-clockwise a frame is turned to stand upright: 0, 90, 180 or 270.
    """

    duration_s: float
    fps: float
    num_frames: int
    width: int
    height: int
    rotation: int


# -- arithmetic ------------------------------------------------------------------------------------------------------


def _num_frames(wanted: float, total: int, max_frames: int) -> int:
    """smart_nframes of qwen-vl-utils 0.0.14: an even number of frames, at least 4 when there are as many."""
    most = max_frames // FRAME_FACTOR * FRAME_FACTOR
    number = min(max(wanted, MIN_FRAMES), most, total)
    return int(number // FRAME_FACTOR) * FRAME_FACTOR


def _spread(total: int, number: int) -> tuple[int, ...]:
    """``torch.linspace(0, total - 1, number).round()``: in float32 from both ends, halves to even."""
    step = np.float32(total - 1) / np.float32(max(number - 1, 1))
    place = np.arange(number, dtype=np.float32)
    from_start = step * place
    from_end = (np.float64(total - 1) - np.float64(step) * (number - 1 - place.astype(np.float64))).astype(np.float32)
    return tuple(int(index) for index in np.rint(np.where(place < number // 2, from_start, from_end)))


def sample_indices(total: int, video_fps: float, fps: float, max_frames: int) -> tuple[int, ...]:
    """Numbers of the frames taken of a video, as the official code takes them.

    Args:
        total: frames in the video.
        video_fps: frames per second of the video.
        fps: frames wanted per second.
        max_frames: most frames.

    Raises:
        MediaError: ``no_frames`` for a video of fewer than two frames.

    >>> [len(sample_indices(total, 30, 1, 64)) for total in (300, 900, 9000, 45, 3)]
    [10, 30, 64, 4, 2]
    """
    number = _num_frames(total / video_fps * fps, total, max_frames)
    if not FRAME_FACTOR <= number <= total:
        raise MediaError("no_frames", "the video holds fewer than two frames")
    return _spread(total, number)


def windows(duration_s: float, moment_s: float, step_s: float) -> list[tuple[float, float]]:
    """(start, end) of the moments that cover a video; the last ends with the video.

    >>> windows(10.0, 8.0, 4.0), windows(3.0, 8.0, 4.0)
    ([(0.0, 8.0), (4.0, 10.0)], [(0.0, 3.0)])
    """
    found: list[tuple[float, float]] = []
    while True:
        start = len(found) * step_s
        if start + moment_s >= duration_s:
            return [*found, (start, duration_s)]
        found.append((start, start + moment_s))


# -- files -----------------------------------------------------------------------------------------------------------


class _View(io.RawIOBase):
    """A reader with a place of its own in a file that others read too."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        self._file.seek(self._place)
        data = self._file.read(-1 if size is None else size)
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_SET:
            self._place = offset
        elif whence == io.SEEK_CUR:
            self._place += offset
        else:
            self._place = self._file.seek(offset, io.SEEK_END)
        return self._place

    def tell(self) -> int:
        return self._place


def _refuse(*_: object) -> None:
    """In place of FFmpeg's own opening of other files."""
    raise PermissionError


class _Video:
    """One reading of a video stream: packets or frames, forward, with jumps."""

    def __init__(self, file: BinaryIO, settings: Settings) -> None:
        self.after_damage = False
        """Whether the frames just before the last one given were left out."""
        try:
            self.container = av.open(
                _View(file),
                mode="r",
                options={
                    "format_whitelist": FORMATS,
                    "protocol_whitelist": "file",
                    "codec_whitelist": ",".join(CODECS),
                },
                metadata_errors="replace",
                buffer_size=IO_BYTES,
                io_open=_refuse,
            )
        except (av.error.FFmpegError, OSError, ValueError):
            raise MediaError("corrupt") from None
        try:
            self.stream = self._video_stream()
            width, height = self.stream.codec_context.width, self.stream.codec_context.height
            if max(width, height) > settings.video_max_side:
                raise MediaError("too_large")
            # threads of their own for frames are faster, but with them a damaged frame is told as one only mostly
            self.stream.thread_type = "SLICE"
            self.time_base = float(self.stream.time_base or 0)
            if self.time_base <= 0:
                raise MediaError("corrupt")
        except BaseException:  # whatever it was, the file is closed and the error goes on
            self.container.close()
            raise

    def _video_stream(self) -> Any:
        for stream in self.container.streams.video:
            # a cover picture in a sound file is a video stream to FFmpeg
            if not stream.disposition & av.stream.Disposition.attached_pic:
                if stream.codec_context is None or stream.codec_context.codec.name not in CODECS:
                    raise MediaError("format_not_allowed", "this video codec is not on the allow-list")
                return stream
        raise MediaError("no_video")

    def packets(self) -> Iterator[Any]:
        """Packets of the stream from here on; a damaged end is an end."""
        try:
            yield from self.container.demux(self.stream)
        except (av.error.FFmpegError, OSError, IndexError):  # PyAV, for a stream that turns up midway in a damaged file
            return

    def frames(self) -> Iterator[Any]:
        """Decoded frames from here on; what cannot be decoded is left out, and what is drawn upon it too.

        Decoders go on behind a damaged picture with what they have: old pictures, grey, smears. Such frames look
        like others; the next picture that stands on its own ends it.
        """
        num_doubtful = 0
        for packet in self.packets():
            try:
                decoded = packet.decode()
            except (av.error.FFmpegError, OSError, ValueError):
                num_doubtful = DOUBTFUL_FRAMES
                continue
            for frame in decoded:
                if frame.is_corrupt:
                    num_doubtful = DOUBTFUL_FRAMES
                elif frame.key_frame or num_doubtful == 0:
                    self.after_damage, num_doubtful = num_doubtful > 0, 0
                    yield frame
                else:
                    num_doubtful -= 1

    def seek(self, pts: int) -> None:
        """Go to the last key frame at or before a time stamp."""
        try:
            self.container.seek(pts, stream=self.stream, backward=True)
        except (av.error.FFmpegError, OSError):
            return

    def close(self) -> None:
        self.container.close()


class _Timeline:
    """The time stamps of a video's frames, read from its packets without decoding, as far as they were asked for."""

    def __init__(self, video: _Video) -> None:
        self._video = video
        self._packets = video.packets()
        self.pts: list[int] = []
        """Time stamps of the frames known so far, rising."""
        self.keys: list[int] = []
        """Those of them that can be decoded without others."""
        self.ended = False
        self.num_seen = 0
        self._reached = 0
        self._zero: int | None = video.stream.start_time
        if self._zero is None:
            self._read_one()

    @property
    def zero(self) -> int:
        """The time stamp of second 0."""
        return self._zero if self._zero is not None else 0

    def seconds(self, pts: int) -> float:
        """Time of a stamp in seconds."""
        return (pts - self.zero) * self._video.time_base

    def jump(self, start_s: float) -> None:
        """Go ahead to a time, before anything was read. It goes a second less far, and not at all for less: some
        containers find a place by decoding time, and would land behind the frames that are shown first.
        """
        if start_s > 1.0:
            self._video.seek(self.zero + int((start_s - 1.0) / self._video.time_base))
            self.pts, self.keys = [], []

    def advance(self, until_s: float) -> None:
        """Read on until every frame before a time is known, or to the end."""
        while not self.ended and not self.seconds(self._reached) > until_s:
            self._read_one()

    def _read_one(self) -> None:
        for packet in self._packets:
            stamp = packet.pts if packet.pts is not None else packet.dts
            if packet.size == 0 or packet.is_discard or stamp is None:
                continue
            if self._zero is None:
                self._zero = stamp
            self.num_seen += 1
            bisect.insort(self.pts, stamp)
            if packet.is_keyframe:
                bisect.insort(self.keys, stamp)
            # frames still to come have later decoding times, and are shown no earlier than they are decoded
            self._reached = packet.dts if packet.dts is not None else stamp
            return
        self.ended = True

    def between(self, start_s: float, end_s: float) -> list[int]:
        """Time stamps of the frames from a time up to, not including, another."""
        margin = 1e-6
        low = bisect.bisect_left(self.pts, self.zero + (start_s - margin) / self._video.time_base)
        high = bisect.bisect_left(self.pts, self.zero + (end_s - margin) / self._video.time_base)
        return self.pts[low:high]

    def forget(self, before_s: float) -> None:
        """Let go of the frames before a time."""
        low = bisect.bisect_left(self.pts, self.zero + (before_s - 1.0) / self._video.time_base)
        del self.pts[:low]

    @property
    def fps(self) -> float:
        """Mean frames per second: the header's if it can be true, else counted."""
        rate = float(self._video.stream.average_rate or 0)
        if SANE_FPS[0] <= rate <= SANE_FPS[1]:
            return rate
        if len(self.pts) > 1 and self.pts[-1] > self.pts[0]:
            rate = (len(self.pts) - 1) / ((self.pts[-1] - self.pts[0]) * self._video.time_base)
        return min(max(rate, SANE_FPS[0]), SANE_FPS[1]) if rate else 1.0

    @property
    def duration_s(self) -> float:
        """Seconds to the end of the last frame known."""
        return max(self.seconds(self.pts[-1]), 0.0) + 1.0 / self.fps if self.pts else 0.0


class _Frames:
    """Frames of a video by time stamp, asked for in rising order; jumps ahead over what is not needed."""

    def __init__(self, video: _Video, timeline: _Timeline, settings: Settings, max_pixels: int | None) -> None:
        self._video = video
        self._timeline = timeline
        self._max_side = settings.video_max_side
        self._max_pixels = max_pixels
        self._decoded = video.frames()
        self._ahead: Any = None
        self._after_damage = False
        self._at: int | None = None
        self._size: tuple[int, int] | None = None
        self._num = 0
        self.rotation = 0

    def get(self, pts: int) -> Pixels | None:
        """The frame at a time stamp, or just behind it when that one cannot be decoded; None when there is none."""
        frame = self._find(pts)
        # frames may be stamped a little later than their packets; behind damage, what comes is of another time
        late = (0.5 if self._after_damage else 1.5) / self._timeline.fps / self._video.time_base
        if frame is None or self._stamp(frame) > pts + late:
            return None
        return self._pixels(frame)

    def _stamp(self, frame: Any) -> int:
        stamp = frame.pts if frame.pts is not None else frame.dts
        return int(stamp) if stamp is not None else 0

    def _find(self, pts: int) -> Any:
        if self._ahead is not None and self._stamp(self._ahead) >= pts:
            return self._ahead
        self._skip_to(pts)
        while self._ahead is None or self._stamp(self._ahead) < pts:
            frame = next(self._decoded, None)
            if frame is None:
                return None
            self._keep(frame)
        return self._ahead

    def _skip_to(self, pts: int) -> None:
        """Jump to the key frame before a time stamp, when it lies ahead."""
        keys = self._timeline.keys
        place = bisect.bisect_right(keys, pts) - 1
        if place < 0 or (self._at is not None and keys[place] <= self._at):
            return
        if self._at is None and self._timeline.seconds(keys[place]) < 1e-3:
            return  # it is the first frame, and nothing was read yet
        # in some containers a jump lands behind the key frame: then again, from further ahead of it
        for early_s in (0.0, 1.0, 10.0):
            self._jump(keys[place] - int(early_s / self._video.time_base))
            self._keep(next(self._decoded, None))
            if self._ahead is not None and self._stamp(self._ahead) <= pts:
                return

    def _keep(self, frame: Any) -> None:
        self._ahead = frame
        self._after_damage = self._video.after_damage
        if frame is not None:
            self._at = self._stamp(frame)

    def _jump(self, pts: int) -> None:
        self._video.seek(pts)
        self._decoded = self._video.frames()
        self._ahead = None

    def _pixels(self, frame: Any) -> Pixels:
        """A frame as RGB, upright; every frame of a video gets the size of the first."""
        if max(frame.width, frame.height) > self._max_side:
            raise MediaError("too_large")
        if self._size is None:
            self._size = _fit(frame.width, frame.height, self._max_pixels)
            self.rotation = round((frame.rotation or 0) / 90.0) * 90 % 360
        width, height = self._size
        try:
            pixels = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BICUBIC")
        except (av.error.FFmpegError, ValueError):
            raise MediaError("corrupt") from None
        return np.ascontiguousarray(np.rot90(pixels, self.rotation // 90)) if self.rotation else pixels


def _fit(width: int, height: int, max_pixels: int | None) -> tuple[int, int]:
    if max_pixels is None or width * height <= max_pixels:
        return width, height
    scale = (max_pixels / (width * height)) ** 0.5
    return max(int(width * scale), 1), max(int(height * scale), 1)


@contextmanager
def _reading(file: BinaryIO, settings: Settings, max_pixels: int | None) -> Iterator[tuple[_Timeline, _Frames]]:
    """The timeline and the frames of an open file, read side by side."""
    with ExitStack() as stack:
        scan = _Video(file, settings)
        stack.callback(scan.close)
        play = _Video(file, settings)
        stack.callback(play.close)
        timeline = _Timeline(scan)
        yield timeline, _Frames(play, timeline, settings, max_pixels)


def _video_file(kind: str, file: BinaryIO) -> BinaryIO:
    if kind != "video":
        raise MediaError("not_media" if kind != "text" else "no_video")
    return file


def probe(source: ByteSource, settings: Settings) -> VideoInfo:
    """What a video is: counted over the whole file, one frame decoded.

    Raises:
        MediaError: ``no_video``, ``no_frames``, ``corrupt``, ``too_large``.
    """
    with (
        open_source(source, settings) as opened,
        _reading(_video_file(opened.sniffed.kind, opened.file), settings, FRAME_PIXELS) as (timeline, frames),
    ):
        timeline.advance(float("inf"))
        if not timeline.pts:
            raise MediaError("no_frames")
        frames.get(timeline.pts[0])
        context = frames._video.stream.codec_context
        return VideoInfo(
            duration_s=timeline.duration_s,
            fps=timeline.fps,
            num_frames=len(timeline.pts),
            width=context.width,
            height=context.height,
            rotation=frames.rotation,
        )


def decode(source: ByteSource, indices: Iterable[int], settings: Settings) -> VideoFrames:
    """The frames of those numbers, rising, at full size. Frames that cannot be decoded are left out.

    Raises:
        MediaError: ``no_frames`` when none can be, and as ``probe``.
    """
    return _decode(source, settings, lambda timeline: tuple(indices))


def sample(
    source: ByteSource, fps: float, max_frames: int, settings: Settings, max_pixels: int | None = None
) -> VideoFrames:
    """The frames the official code takes of a video file, at full size or, if they are larger, of ``max_pixels``; a
    video of one frame gives it twice.

    Raises:
        MediaError: as ``decode``.
    """

    def choose(timeline: _Timeline) -> tuple[int, ...]:
        total = len(timeline.pts)
        return (0, 0) if total == 1 else sample_indices(total, timeline.fps, fps, max_frames)

    return _decode(source, settings, choose, max_pixels)


def _decode(source: ByteSource, settings: Settings, choose: Any, max_pixels: int | None = None) -> VideoFrames:
    with (
        open_source(source, settings) as opened,
        _reading(_video_file(opened.sniffed.kind, opened.file), settings, max_pixels) as (timeline, frames),
    ):
        timeline.advance(float("inf"))
        if not timeline.pts:
            raise MediaError("no_frames")
        if timeline.duration_s > settings.video_max_s:
            raise MediaError("too_large", "the video is over the limit of seconds")
        indices = choose(timeline)
        if any(not 0 <= index < len(timeline.pts) for index in indices):
            raise MediaError("option", "the video holds no frame of that number")
        found: dict[int, Pixels] = {}
        for index in sorted(set(indices)):
            pixels = frames.get(timeline.pts[index])
            if pixels is not None:
                found[index] = pixels
        return _frames([index for index in indices if index in found], found, timeline.fps)


def _frames(indices: Sequence[int], found: dict[int, Pixels], fps: float) -> VideoFrames:
    if not indices:
        raise MediaError("no_frames")
    if len(indices) == 1:
        indices = [indices[0], indices[0]]
    stacked: NDArray[np.uint8] = np.stack([found[index] for index in indices])
    return VideoFrames(frames=stacked, indices=tuple(indices), fps=fps)


# -- moments ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Window:
    """A moment before its frames are decoded.

    Attributes:
        start_s, end_s: its place.
        indices: frames taken, counted from the first frame of the moment.
        wanted: their time stamps.
        fps: frames per second inside the moment.
    """

    start_s: float
    end_s: float
    indices: tuple[int, ...]
    wanted: tuple[int, ...]
    fps: float


def _window(timeline: _Timeline, start_s: float, end_s: float, settings: Settings) -> _Window | None:
    """The frames a moment takes: sampled as if the moment were a video of its own."""
    stamps = timeline.between(start_s, end_s)
    if not stamps or end_s <= start_s:
        return None
    length_s = end_s - start_s
    number = _num_frames(length_s * settings.video_fps, len(stamps), settings.video_max_frames)
    indices = _spread(len(stamps), number) if number else (0,)
    wanted = tuple(stamps[index] for index in indices)
    return _Window(start_s=start_s, end_s=end_s, indices=indices, wanted=wanted, fps=len(stamps) / length_s)


def _plan(timeline: _Timeline, settings: Settings) -> Iterator[_Window]:
    """The moments of a video, as ``windows`` cuts it, while its length is still being read."""
    number = 0
    while True:
        start = number * settings.moment_step_s
        end = start + settings.moment_s
        timeline.advance(end)
        last = timeline.ended and end >= timeline.duration_s
        if last:
            end = timeline.duration_s
        if end >= settings.video_max_s:
            end, last = settings.video_max_s, True
        window = _window(timeline, start, end, settings)
        if window is not None:
            yield window
        if last:
            return
        number += 1
        timeline.forget(number * settings.moment_step_s)


def moments(source: ByteSource, settings: Settings) -> Iterator[tuple[float, float, VideoFrames | MediaError]]:
    """(start, end, frames) of each moment of a video, in order; a moment that cannot be decoded gives its error.

    Every frame is decoded once although moments overlap; memory holds the frames of the moments that overlap.
    Frames have at most ``FRAME_PIXELS`` pixels, and are numbered from the start of their moment, as if it were a
    video of its own: equal pictures give equal vectors wherever they stand. A last entry says what was left out.

    Raises:
        MediaError: as ``probe``.
    """
    with open_source(source, settings) as opened:
        yield from file_moments(_video_file(opened.sniffed.kind, opened.file), settings)


def file_moments(file: BinaryIO, settings: Settings) -> Iterator[tuple[float, float, VideoFrames | MediaError]]:
    """``moments`` of an open file."""
    with _reading(file, settings, FRAME_PIXELS) as (timeline, frames):
        planned = _plan(timeline, settings)
        ahead: deque[_Window] = deque()
        found: dict[int, Pixels] = {}
        num_moments = 0
        while True:
            # all moments that begin before this one ends: their frames come by while this one is decoded
            while not ahead or ahead[-1].start_s < ahead[0].end_s:
                window = next(planned, None)
                if window is None:
                    break
                ahead.append(window)
            if not ahead:
                break
            head = ahead.popleft()
            needed = {stamp for window in (head, *ahead) for stamp in window.wanted if stamp <= head.wanted[-1]}
            for stamp in sorted(needed - found.keys()):
                pixels = frames.get(stamp)
                if pixels is not None:
                    found[stamp] = pixels
            num_moments += 1
            yield head.start_s, head.end_s, _moment(head, found)
            kept = {stamp for window in ahead for stamp in window.wanted}
            found = {stamp: pixels for stamp, pixels in found.items() if stamp in kept}
        if num_moments == 0:
            raise MediaError("no_frames")
        yield from _left_out(timeline, frames, settings)


def _left_out(
    timeline: _Timeline, frames: _Frames, settings: Settings
) -> Iterator[tuple[float, float, VideoFrames | MediaError]]:
    """What a limit or damage kept from being read."""
    if not timeline.ended or timeline.duration_s > settings.video_max_s:
        limit = settings.video_max_s
        yield limit, limit, MediaError("too_large", f"what comes after {limit:g} s was not read")
        return
    declared = int(frames._video.stream.frames or 0)
    if timeline.num_seen < 0.98 * declared:
        end = timeline.duration_s
        missing = f"{declared - timeline.num_seen} of {declared} frames are missing"
        yield end, end, MediaError("corrupt", missing)


def _moment(window: _Window, found: dict[int, Pixels]) -> VideoFrames | MediaError:
    present = {
        index: found[stamp] for index, stamp in zip(window.indices, window.wanted, strict=True) if stamp in found
    }
    if not present:
        return MediaError("corrupt")
    return _frames(sorted(present), present, window.fps)


def file_moment(file: BinaryIO, start_s: float, end_s: float, settings: Settings) -> VideoFrames:
    """One moment of an open file, as ``moments`` gave it; only its own part of the file is read."""
    with _reading(file, settings, FRAME_PIXELS) as (timeline, frames):
        timeline.jump(start_s)
        timeline.advance(end_s)
        window = _window(timeline, start_s, end_s, settings)
        if window is None:
            raise MediaError("no_frames")
        found: dict[int, Pixels] = {}
        for stamp in sorted(set(window.wanted)):
            pixels = frames.get(stamp)
            if pixels is not None:
                found[stamp] = pixels
        value = _moment(window, found)
        if isinstance(value, MediaError):
            raise value
        return value
