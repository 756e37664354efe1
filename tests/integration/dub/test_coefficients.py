"""Fitted expressions of the frames of an enrolment, from the face stage."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.dub.analyse.footage import analyse_footage
from gateway.dub.learn import coefficients
from gateway.dub.learn.coefficients import fitted_expressions
from gateway.dub.learn.enrol import fit_identity
from gateway.dub.state.records import FACE_RECORD, RecordFile
from gateway.media.probe import probe
from gateway.stages import calls
from gateway.stages.local import LocalStages, compose_stages
from services.common.errors import NoUsableFootageError
from services.common.face.identity import model_of_identity
from services.common.geometry.morphable_model import default_model
from services.common.store.artefacts import ArtefactStore
from services.common.wire.convert import ref_from_proto
from tests.integration.research.trainset.footage import write_video

FRAMES = 6


def quiet(*_: object) -> None:
    """Take no progress."""


async def test_the_face_model_of_the_installation_is_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    default_model().truncated(identity=8, expression=10).save(tmp_path / "models" / "mine.safetensors")
    monkeypatch.setenv("DUBSTAGE_MORPHABLE_MODELS", str(tmp_path / "models"))
    write_video(tmp_path / "video.mkv", frames=4, sound=False)
    info = probe(tmp_path / "video.mkv")
    stages: Any
    async with LocalStages(compose_stages(str(tmp_path / "artefacts"), names=("face",)), face_model="mine") as stages:
        with RecordFile(tmp_path / "faces", FACE_RECORD) as faces:
            await analyse_footage(stages, info, faces, threads=1, on_progress=quiet)
            identity = await fit_identity(stages, info, faces, [0, 1, 2, 3], quiet)
            stored = ArtefactStore(str(tmp_path / "artefacts")).get_arrays(ref_from_proto(identity, "identity"))
            assert model_of_identity(stored) == "mine"
            found = await fitted_expressions(stages, info, faces, [0, 1, 2, 3], identity, quiet)
            assert found.shape == (4, 10)


async def test_every_row_of_the_person_gets_an_expression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "video.mkv", frames=FRAMES, sound=False)
    info = probe(tmp_path / "video.mkv")
    stages: Any
    async with LocalStages(compose_stages(str(tmp_path / "artefacts"), names=("face",))) as stages:
        with RecordFile(tmp_path / "faces", FACE_RECORD) as faces:
            await analyse_footage(stages, info, faces, threads=1, on_progress=quiet)
            rows = [0, 1, 3, 4]
            identity = await fit_identity(stages, info, faces, rows, quiet, three_stage=True)
            steps: list[tuple[str, int, int]] = []
            found = await fitted_expressions(stages, info, faces, rows, identity, lambda *step: steps.append(step))
            # A call ends at each state, and the next call goes on with the same fits.
            stages.call_deadline_s = 60.0
            monkeypatch.setattr(calls, "NEARLY_OVER", 0.0)
            monkeypatch.setattr(coefficients, "STATE_EVERY", 1)
            again = await fitted_expressions(stages, info, faces, rows, identity, quiet)
            assert found.shape == (len(rows), 64)
            assert found.dtype == np.float32
            assert np.isfinite(found).all()
            assert np.array_equal(found, again)
            # The photograph only moves sideways: the mouth stays.
            basis = default_model().landmark_set("mouth_area").of_basis(default_model().expression_basis)
            assert np.abs((found - found.mean(0)) @ basis.reshape(-1, 64).T).max() < 2.0
            assert steps[-1] == ("coefficients", 5, 5)

            elsewhere = faces.read_rows(rows).copy()
            elsewhere["translation"][:, 0] += 2000.0
            with RecordFile(tmp_path / "others", FACE_RECORD) as others:
                others.append(elsewhere)
                others.sync()
                with pytest.raises(NoUsableFootageError, match="none of the enrolled frames"):
                    await fitted_expressions(stages, info, others, list(range(len(rows))), identity, quiet)
