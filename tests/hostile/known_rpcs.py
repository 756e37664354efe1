"""Requests that once filled a stage's memory, hung it, or were answered with the wrong code; each is a case of its own."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dubstage.client import to_image, to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.gateway.v1 import dub_pb2
from tests.hostile.bases import every_rpc
from tests.hostile.case import REFUSED, Case, Outcome
from tests.hostile.rpcs import UNCALLED, Changed, changed_case, send
from tests.hostile.streams import (
    GRPC_FRAME_LIMIT,
    MANY,
    idle_streams,
    large_field,
    many_at_once,
    served_beside_idle_streams,
    then_serves,
)
from tests.hostile.world import World

HUGE = (4_611_686_018_427_387_904, 9_223_372_036_854_775_807)
LARGEST = float(np.finfo(np.float32).max)
TOO_LARGE = frozenset({"RESOURCE_EXHAUSTED"})
SERVED = frozenset({"OK", "RESOURCE_EXHAUSTED"})
"""Codes of a stream that is taken, or that a busy gateway refuses."""
URIS = (
    *("file://[x", "x" * 5000, "file:///" + "x" * 300, "C:\\videos\\video.mp4", "videos\\video.mp4"),
    *("http://127.0.0.1:9/x.mp4", "../video.mp4"),
)
LABELS = (
    *("x" * 61, "ü" * 121, "y" * 100_000, " ", "x\ny", "x\x1b[31m", "\u202ex", "\u200b", "\u0301" * 60, "由AI配音"),
    "\u05d0\u05d9",
)
"""Texts that are no label."""
FACES = (("CreateDub", "dub."), ("CreateActor", ""))
"""RPCs that name a face, and where the fields of the face stand."""


def _set(path: str, value: Any, index: int = 0) -> Changed:
    """Sets a field of one message of the stream by its path."""

    def change(messages: list[Any]) -> None:
        owner, _, name = path.rpartition(".")
        message = messages[index]
        for part in owner.split(".") if owner else ():
            message = getattr(message, part)
        if isinstance(value, list):
            del getattr(message, name)[:]
            getattr(message, name).extend(value)
        elif hasattr(getattr(message, name), "CopyFrom"):
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)

    return change


def _refused(rpc: str, path: str, value: Any, *, index: int = 0, base: int = 0, says: str | None = None) -> Case:
    said = f"{_described(value)}{f' in base {base}' if base else ''}"
    named = path.rpartition(".")[2] if says is None else says
    return changed_case(rpc, f"{path} = {said}", _set(path, value, index), REFUSED, base=base, says=(named,) if named else ())


def _described(value: Any) -> str:
    if isinstance(value, common_pb2.Tensor):
        return f"all {np.frombuffer(value.data, '<f4')[0]:.3g}"
    return " ".join(str(value).split())[:90] if hasattr(value, "CopyFrom") else f"{value!r:.60}".replace("\n", " ")


def _filled(count: int, value: float, *shape: int, dtype: type = np.float32) -> common_pb2.Tensor:
    return to_tensor(np.full((count, *shape), value, dtype))


def _rates() -> list[Case]:
    """Rates, lengths and numbers of steps without a bound."""
    rate = "config.timeline.frame_rate"
    fast = common_pb2.FrameTimes(time_base=common_pb2.Rational(num=1, den=1_000_000), pts=range(100_000))
    far = common_pb2.FrameTimes(time_base=common_pb2.Rational(num=1, den=1), pts=[0, 25_000_000_000])
    fast_pts, far_pts = (common_pb2.Timeline(explicit=times) for times in (fast, far))
    parts = ("num", "den")
    wanted = "config.output_timeline.frame_rate"
    return [
        *(_refused("audio.ExtractFeatures", f"{rate}.{part}", huge, says="frame_rate") for part in parts for huge in HUGE),
        *(_refused("audio.ExtractFeatures", "config.num_frames", huge) for huge in (*HUGE, -1)),
        _refused("audio.ExtractFeatures", "config.timeline", fast_pts),
        _refused("audio.ExtractFeatures", "config.timeline", far_pts),
        *(_refused("motion.PredictMotion", f"{wanted}.{part}", HUGE[0], says="frame_rate") for part in parts),
        _refused("motion.PredictMotion", "config.num_frames", HUGE[1]),
        *(_refused("motion.EncodeStyle", f"frame_rate.{part}", huge, says="frame_rate") for part in parts for huge in HUGE),
        *(_refused("face.Track", "config.timeline", _frames_per_s(*rate)) for rate in ((HUGE[0], 1), (1, HUGE[0]))),
        _refused("render.Personalize", "num_steps", 4_294_967_295),
    ]


def _frames_per_s(num: int, den: int) -> common_pb2.Timeline:
    return common_pb2.Timeline(frame_rate=common_pb2.Rational(num=num, den=den))


def _numbers() -> list[Case]:
    """Numbers that are finite and cannot be used."""
    zeros, poses = _filled(478, 0.0, 3), [3e38, 0.0, 0.0]
    return [
        _refused("face.FitIdentity", "frame.face.landmarks", zeros, index=1, says="landmarks"),
        *(
            _refused(
                "texture.RetrieveWarp", "frame.motion.mouth_landmarks", _filled(59, value, 3), index=1, base=base, says="landmarks"
            )
            for value in (LARGEST, -1e30, 3e38)
            for base in (0, 1, 2)
        ),
        *(_refused("texture.RetrieveWarp", "frame.pose.translation", poses, index=1, base=base, says="pose") for base in (0, 1, 2)),
        _refused("texture.SampleNeuralTexture", "target.pose.translation", poses, index=1, says="pose"),
        *(
            _refused("texture.SampleNeuralTexture", "uv.uv", _filled(20, value, 30, 2), index=1, base=1, says="uv.uv")
            for value in (float("nan"), 1.5)
        ),
        _refused("texture.BuildBank", "frame.pose.translation", poses, index=1, says="pose"),
        _refused("texture.BuildBank", "frame.landmarks", _filled(478, -1e30, 3), index=1),
        changed_case("texture.RotatePortrait", "a portrait of 4000 x 1", _portrait(1, 4000), REFUSED),
        changed_case("texture.RotatePortrait", "a portrait of 1 x 4000", _portrait(4000, 1), REFUSED),
        *(
            _refused("texture.RotatePortrait", "frame.pose.scale", scale, index=1, says="pose")
            for scale in (1e300, float("nan"), -1.0)
        ),
    ]


def _portrait(height: int, width: int) -> Changed:
    return _set("config.portrait", to_image(np.zeros((height, width, 3), np.uint8)))


def _bytes() -> list[Case]:
    """Bytes that are no message, and messages over the limit, on every RPC."""
    rpcs = {name: rpc for name, rpc in every_rpc().items() if name not in UNCALLED}

    def case(name: str, what: str, allowed: frozenset[str], data: Callable[[bytes], list[bytes]]) -> Case:
        def act(world: World) -> Outcome:
            return then_serves(world, name, send(world, world.rpcs[name], data(world.bases[name][0][0].SerializeToString())))

        return Case("rpc", f"{name}: {what}", act, allowed)

    noise = b"\xff\xff\xff"
    largest = ("face.Track", "gateway.Live", "motion.EncodeStyle")
    streams = [name for name, rpc in rpcs.items() if rpc.requests_stream and not name.startswith("ServerReflection")]
    return [
        *(case(name, "bytes that are no message", REFUSED, lambda first: [noise]) for name in rpcs),
        *(case(name, "17 MiB", TOO_LARGE, lambda first: [first + large_field(17 << 20)]) for name in rpcs),
        *(case(name, "64 MiB", TOO_LARGE, lambda first: [first + large_field(GRPC_FRAME_LIMIT)]) for name in largest),
        *(case(name, "bytes that are no message behind the config", REFUSED, lambda first: [first, noise]) for name in streams),
    ]


def _uris() -> list[Case]:
    """Uris that name nothing, or something elsewhere."""
    media = [
        ("gateway.CreateActor", "footage_uri"),
        *(("gateway.CreateDub", f"dub.{what}_uri") for what in ("footage", "speech", "output")),
    ]
    refs = [
        ("motion.PredictMotion", "config.style.uri", 0),
        ("motion.Personalize", "style.uri", 0),
        ("texture.RetrieveWarp", "config.bank.uri", 0),
        ("render.Personalize", "bank.uri", 0),
        ("render.Render", "config.actor.uri", 0),
        ("texture.RotatePortrait", "config.identity.uri", 0),
    ]
    return [
        *(_refused(rpc, field, uri) for rpc, field in media for uri in URIS),
        *(
            _refused(rpc, path, uri, base=base, says="")
            for rpc, path, base in refs
            for uri in ("file://[x", "x" * 100_000, "s3://[x/y")
        ),
    ]


def _dubs() -> list[Case]:
    """Mistakes of a dub that a check before the work finds."""
    consent = "consent.date"
    return [
        *(
            _refused("gateway.CreateDub", f"dub.{name}", number)
            for name in ("codec", "expression", "finish", "fit")
            for number in (-1, 99)
        ),
        *(
            _refused("gateway.CreateDub", "dub.output_uri", uri)
            for uri in ("video.txt", "video", "video.wav", "video.m3u8", "video.png", "")
        ),
        *(_refused("gateway.CreateDub", "dub.point.x", place, says="point") for place in (math.nan, math.inf, -1.0, 1e300)),
        *(_refused(f"gateway.{rpc}", f"{dub}face_id", number) for rpc, dub in FACES for number in (-1, 2**62)),
        *(_refused(f"gateway.{rpc}", f"{dub}face_rule", 99) for rpc, dub in FACES),
        _refused("gateway.CreateActor", "point.y", math.nan, says="point"),
        *(
            _refused("gateway.CreateActor", consent, date, says="date")
            for date in ("0000-01-01", "2999-01-01", "nan", "1", "-1", "9999999999")
        ),
        _refused("gateway.CreateDub", "dub.method", "magic"),
        _refused("gateway.CreateDub", "dub.output_uri", "footage.mp4"),
        _refused("gateway.CreateDub", "dub.output_uri", "speech.wav"),
        _refused("gateway.CreateDub", "dub.seed", -1),
        _refused("gateway.ListActors", "page_size", -1),
        _refused("gateway.ListActors", "page_token", "[x", says=""),
        _refused("gateway.ListDubs", "page_size", -1),
        _refused("gateway.ListDubs", "page_token", "[x", says=""),
        _refused("Operations.ListOperations", "page_size", -1),
    ]


def _labels() -> list[Case]:
    """Labels of live streams and dubs, and their corners."""
    live = "gateway.Live"
    placed = dub_pb2.LABEL_POSITION_TOP_RIGHT
    return [
        *(_refused(live, "config.label", text, base=1) for text in LABELS),
        *(_refused("gateway.CreateDub", "dub.label", text) for text in LABELS),
        *(_refused(live, "config.label_position", number, base=1) for number in (-1, 99, 2**31 - 1)),
        _refused(live, "config.label_position", placed),
        changed_case(live, "a label of wide letters", _set("config.label", "W" * 60), SERVED, base=1),
        changed_case(live, "a label of marks", _set("config.label", "e\u0301" * 60), SERVED, base=1),
        changed_case(live, "a label of one letter with many marks", _set("config.label", "e" + "\u0301" * 59), SERVED, base=1),
        changed_case(live, "a label of an emoji", _set("config.label", "\U0001f600"), SERVED, base=1),
        changed_case(live, "the config behind the sound", list.reverse, REFUSED, base=1, says=("config",)),
        changed_case(live, "the config twice", _config_twice, REFUSED, base=1, says=("config",)),
    ]


def _config_twice(messages: list[Any]) -> None:
    messages.insert(1, messages[0])


def _crowds() -> list[Case]:
    """More callers than a server takes."""

    def crowd(name: str) -> Case:
        return Case("stream", f"{name} on {MANY} connections", lambda world: then_serves(world, name, many_at_once(world, name)))

    def silence(name: str) -> Case:
        def act(world: World) -> Outcome:
            with world.live_places:
                return then_serves(world, name, idle_streams(world, name))

        return Case("stream", f"{name}: 24 idle streams", act)

    def starved(name: str, places: int) -> Case:
        def act(world: World) -> Outcome:
            with world.live_places:
                return served_beside_idle_streams(world, name, places)

        return Case("stream", f"{name}: silent streams that stay", act)

    crowded = ("audio.ExtractFeatures", "render.ListModels", "gateway.ListActors")
    silent = ("audio.ExtractFeatures", "texture.RetrieveWarp", "gateway.Live")
    return [*map(crowd, crowded), *map(silence, silent), starved("audio.ExtractFeatures", 8), starved("gateway.Live", 2)]


KNOWN_RPCS: tuple[Case, ...] = (*_rates(), *_numbers(), *_bytes(), *_uris(), *_dubs(), *_labels(), *_crowds())
