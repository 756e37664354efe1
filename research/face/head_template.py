"""Make `services/common/face/head_template.npy`: the mean head that defines head space.

The mean head is the result of a generalised Procrustes analysis over the training speakers' face meshes (468 x 3), with the same
weight for every speaker, turned upright and scaled to FACE_WIDTH. Run:

    python -m research.face.head_template CLIP... --output services/common/face/head_template.npy
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import av
import mediapipe as mp
import numpy as np
import numpy.typing as npt

FACE_WIDTH = 185.0
"""Distance of mesh vertices 234 and 454 (in front of the ears) in head space, in crop pixels."""
MIRRORED_PAIRS = ((33, 263), (133, 362), (234, 454), (61, 291), (127, 356), (93, 323), (172, 397), (98, 327))
FRAMES_PER_CLIP = 12


def meshes_of(path: Path) -> list[npt.NDArray[np.float64]]:
    """Return face meshes, float64 [468, 3] in pixels, of FRAMES_PER_CLIP frames spread over a clip."""
    meshes: list[npt.NDArray[np.float64]] = []
    with (
        av.open(str(path)) as container,
        mp.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesher,
    ):
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with mp.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesher:
        for index in np.linspace(0, len(frames) - 1, FRAMES_PER_CLIP).astype(int):
            rgb = frames[index]
            result = mesher.process(np.ascontiguousarray(rgb)).multi_face_landmarks
            if result:
                height, width = rgb.shape[:2]
                points = [(p.x * width - 0.5, p.y * height - 0.5, p.z * width) for p in result[0].landmark[:468]]
                meshes.append(np.array(points, dtype=np.float64))
    return meshes


def align(source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return `source` [N, 3] after the similarity (Umeyama 1991) that brings it nearest to `target` [N, 3]."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, singular, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ sign @ vt
    scale = (singular * np.diag(sign)).sum() / (a**2).sum()
    return np.asarray(scale * a @ rotation.T + target.mean(0))


def mean_head(by_speaker: dict[str, list[npt.NDArray[np.float64]]]) -> npt.NDArray[np.float32]:
    """Return the mean mesh, float32 [468, 3]: x right, y down, z away from the camera, origin between the lips."""
    mean = next(iter(by_speaker.values()))[0]
    for _ in range(10):
        mean = np.mean([np.mean([align(m, mean) for m in meshes], axis=0) for meshes in by_speaker.values()], axis=0)
    # One mesh does not show the zero of pitch. The speakers look at the camera, so the mean of the raw orientations is upright.
    raw = np.mean([np.mean([m / np.linalg.norm(m - m.mean(0)) for m in ms], axis=0) for ms in by_speaker.values()], axis=0)
    mean = align(mean, raw)
    right, left = (np.array([mean[pair[i]] for pair in MIRRORED_PAIRS]) for i in (0, 1))
    x_axis = (left - right).sum(0)
    x_axis /= np.linalg.norm(x_axis)
    z_axis = np.array([0.0, 0.0, 1.0]) - x_axis[2] * x_axis
    z_axis /= np.linalg.norm(z_axis)
    mean = mean @ np.stack([x_axis, np.cross(z_axis, x_axis), z_axis]).T
    mean *= FACE_WIDTH / np.linalg.norm(mean[454] - mean[234])
    return np.asarray(mean - mean[[13, 14]].mean(0), dtype=np.float32)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", metavar="SPEAKER=CLIP")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    by_speaker: dict[str, list[npt.NDArray[np.float64]]] = defaultdict(list)
    for item in arguments.clips:
        speaker, _, path = item.partition("=")
        by_speaker[speaker] += meshes_of(Path(path))
    np.save(arguments.output, mean_head(by_speaker))


if __name__ == "__main__":
    main()
