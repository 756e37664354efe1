"""Spherical harmonics: values by hand, orthonormality on the sphere, irradiance by integration, and light that is found again."""

import numpy as np
import pytest
import torch

from services.common.geometry import lighting

RANDOM = np.random.default_rng(7)


def sphere(count=20000):
    """Evenly spread directions (Fibonacci), float64 [count, 3]."""
    i = np.arange(count) + 0.5
    z, angle = 1 - 2 * i / count, np.pi * (1 + np.sqrt(5)) * i
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], -1)


def test_harmonics_at_the_axes():
    """Values at the axes are those of the textbook."""
    at_z = lighting.harmonics(np.array([0.0, 0.0, 1.0]))
    assert at_z == pytest.approx([0.2820948, 0, 0.4886025, 0, 0, 0, 0.6307831, 0, 0], abs=1e-7)
    at_x = lighting.harmonics(np.array([1.0, 0.0, 0.0]))
    assert at_x == pytest.approx([0.2820948, 0, 0, 0.4886025, 0, 0, -0.3153916, 0, 0.5462742], abs=1e-7)
    diagonal = lighting.harmonics(np.array([1.0, 1.0, 0.0]) / np.sqrt(2))
    assert diagonal[4] == pytest.approx(1.0925484 / 2)


def test_the_nine_functions_are_orthonormal_on_the_sphere():
    values = lighting.harmonics(sphere())
    assert 4 * np.pi * values.T @ values / len(values) == pytest.approx(np.eye(9), abs=1e-3)


def test_shading_is_cosine_integral():
    """Shading is the integral of radiance times cosine over pi."""
    light = RANDOM.normal(size=(9, 3))
    directions = sphere()
    radiance = lighting.harmonics(directions) @ light
    for normal in (np.array([0.0, 0.0, -1.0]), np.array([0.6, -0.48, 0.64])):
        cosine = np.maximum(directions @ normal, 0.0)
        irradiance = 4 * np.pi * (radiance * cosine[:, None]).mean(0)
        assert lighting.shading(normal[None], light)[0] == pytest.approx(irradiance / np.pi, abs=2e-3)


def test_a_uniform_environment_shades_everything_with_its_radiance():
    shaded = lighting.shading(sphere(100), lighting.ambient((1.0, 0.5, 0.25)))
    assert shaded == pytest.approx(np.broadcast_to([1.0, 0.5, 0.25], (100, 3)), abs=1e-6)


def test_known_light_is_found():
    """A known light is found from colours and albedo."""
    normals, albedo = sphere(500), RANDOM.uniform(0.2, 0.8, (500, 3))
    light = lighting.ambient() + 0.3 * RANDOM.normal(size=(2, 9, 3))
    colours = albedo * lighting.shading(normals, light)
    found = lighting.estimate_light(
        colours, np.broadcast_to(albedo, colours.shape), np.broadcast_to(normals, colours.shape), ridge=0.0
    )
    assert found == pytest.approx(light, abs=1e-6)


def test_hidden_points_do_not_disturb_the_light():
    normals, albedo = sphere(500), RANDOM.uniform(0.2, 0.8, (500, 3))
    light = lighting.ambient().astype(np.float64)
    colours = albedo * lighting.shading(normals, light)
    colours[:100] = 5.0
    weights = np.ones(500)
    weights[:100] = 0.0
    assert lighting.estimate_light(colours, albedo, normals, weights, ridge=1e-6) == pytest.approx(light, abs=1e-4)


def test_half_sphere_determines_light():
    """Half a sphere of normals still gives a light that explains it."""
    normals = sphere(1000)
    normals = normals[normals[:, 2] < -0.2]
    light = lighting.ambient() + 0.2 * RANDOM.normal(size=(9, 3))
    colours = lighting.shading(normals, light) + 0.01 * RANDOM.normal(size=normals.shape)
    found = lighting.estimate_light(colours, np.ones_like(colours), normals)
    assert np.abs(lighting.shading(normals, found) - lighting.shading(normals, light)).mean() < 0.01
    assert np.abs(found).max() < 3 * np.abs(light).max()


def test_mean_shading_over_half_sphere():
    """Mean shading is the mean over the half sphere that faces the camera."""
    light = RANDOM.normal(size=(9, 3))
    normals = sphere()
    facing = lighting.shading(normals[normals[:, 2] < 0], light).mean(0)
    assert lighting.mean_shading(light) == pytest.approx(facing, abs=1e-3)


def test_scale_moves_to_albedo():
    """The shared factor moves from light to albedo and the colour stays."""
    normals, albedo = sphere(50), RANDOM.uniform(0.2, 0.8, (50, 3))
    light = 0.6 * lighting.ambient((1.0, 0.8, 0.6)) + 0.05 * RANDOM.normal(size=(9, 3))
    split = lighting.normalise_light(light, albedo)
    assert lighting.mean_shading(split.light) == pytest.approx(np.ones(3))
    assert split.albedo * lighting.shading(normals, split.light) == pytest.approx(albedo * lighting.shading(normals, light))


def test_torch_gives_the_same_light_with_gradients():
    normals, albedo = sphere(200), RANDOM.uniform(0.2, 0.8, (200, 3))
    colours = albedo * lighting.shading(normals, lighting.ambient() + 0.1)
    tensors = [torch.from_numpy(np.asarray(a, np.float64)).requires_grad_() for a in (colours, albedo, normals)]
    found = lighting.estimate_light(*tensors)
    assert found.detach().numpy() == pytest.approx(lighting.estimate_light(colours, albedo, normals))
    assert torch.autograd.grad(found.sum(), tensors[0])[0].isfinite().all()
    assert torch.autograd.gradcheck(
        lighting.shading, (tensors[2][:5].detach().requires_grad_(), torch.rand(9, 3, dtype=torch.float64))
    )
