"""Parts of formulas: constants, rows, unit vectors; and what the package loads."""

import subprocess
import sys

import numpy as np
import pytest

from services.common.geometry.arrays import constant, gather, normalised


def test_constant_shares_memory():
    """A constant takes the type and shares memory where it can."""
    values = np.arange(3, dtype=np.float32)
    assert constant(values, np.zeros(1, np.float32)) is values
    assert constant(values, np.zeros(1)).dtype == np.float64


def test_rows_are_gathered_by_tables_of_any_shape():
    points = np.random.default_rng(0).normal(size=(2, 5, 3))
    table = np.array([[0, 4], [1, 1]], np.int32)
    assert gather(points, table).shape == (2, 2, 2, 3)
    assert np.array_equal(gather(points, table)[:, 0, 1], points[:, 4])


def test_zero_vector_stays_zero():
    assert normalised(np.array([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0]])) == pytest.approx(np.array([[0.0, 0.0, 0.0], [0.0, 0.6, 0.8]]))


def test_package_never_loads_torch():
    program = (
        "import sys, numpy as np\n"
        "from services.common.geometry.morphable_model import default_model\n"
        "from services.common.geometry.camera import WeakPerspective\n"
        "from services.common.geometry.coefficients import coefficients_from_landmarks\n"
        "from services.common.geometry import lighting, rotations, alignment\n"
        "from services.common.face import loaders\n"
        "model = default_model()\n"
        "camera = WeakPerspective(np.ones(1), np.eye(3)[None], np.zeros((1, 3)))\n"
        "image = camera.project(model.shape(np.zeros(model.num_identity), np.zeros((1, model.num_expression))))\n"
        "coefficients_from_landmarks(model, image, camera)\n"
        "lighting.estimate_light(image, image, lighting.vertex_normals(image, model.triangles))\n"
        "rotations.nearest_rotation(camera.rotation)\n"
        "assert 'torch' not in sys.modules and 'scipy' not in sys.modules and 'cv2' not in sys.modules, sorted(sys.modules)\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
