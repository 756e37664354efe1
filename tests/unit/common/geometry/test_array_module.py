"""Numpy or torch, by the argument."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from services.common.geometry.array_module import array_module, constant, gather, is_tensor, normalised


def test_the_module_is_the_arguments_own():
    assert array_module(np.zeros(2)) is np
    assert array_module(torch.zeros(2)) is torch
    assert is_tensor(torch.nn.Parameter(torch.zeros(2)))
    assert not is_tensor(np.float32(1.0))


def test_constant_shares_memory():
    """A constant takes kind and type and shares memory where it can."""
    values = np.arange(3, dtype=np.float32)
    assert constant(values, np.zeros(1, np.float32)) is values
    assert constant(values, np.zeros(1)).dtype == np.float64
    tensor = constant(values, torch.zeros(1))
    assert tensor.data_ptr() == values.ctypes.data
    assert constant(values, torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


def test_read_only_array_is_copied():
    """A read only array becomes a tensor of its own."""
    values = np.arange(3, dtype=np.float32)
    values.flags.writeable = False
    assert constant(values, torch.zeros(1)).data_ptr() != values.ctypes.data


def test_rows_are_gathered_by_tables_of_any_shape():
    points = np.random.default_rng(0).normal(size=(2, 5, 3))
    table = np.array([[0, 4], [1, 1]], np.int32)
    assert gather(points, table).shape == (2, 2, 2, 3)
    assert np.array_equal(gather(points, table)[:, 0, 1], points[:, 4])
    assert gather(torch.from_numpy(points), table).numpy() == pytest.approx(gather(points, table))


def test_zero_vector_finite_gradient():
    """A vector of no length stays zero with a finite gradient."""
    vectors = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    unit = normalised(vectors)
    assert unit.detach().numpy() == pytest.approx(np.zeros((2, 3)))
    assert torch.autograd.grad(unit.sum(), vectors)[0].isfinite().all()


def test_numpy_alone_never_imports_torch():
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
