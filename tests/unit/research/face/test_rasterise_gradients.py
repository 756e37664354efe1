from __future__ import annotations

import numpy as np
import pytest
import torch

from research.face.rasterise_gradients import antialias, interpolate, neighbours_of
from services.common.geometry import rasterise as plain
from services.common.geometry.rasterise import rasterise
from tests.unit.common.geometry.test_rasterise import grid_mesh

SIZE = 10


def scene(seed: int, perspective: bool = True):
    """Two crossing sheets in a 10 x 10 picture: vertices, depth, attributes (float64, with gradients), triangles, fragments."""
    rng = np.random.default_rng(seed)
    first, triangles = grid_mesh(3, 1.3, 7.6, 0.5, seed)
    second, _ = grid_mesh(3, 3.2, 9.1, 0.5, seed + 1)
    vertices = torch.tensor(np.concatenate([first, second], 1), dtype=torch.float64).repeat(2, 1, 1)
    vertices[1] += 0.37
    depth = torch.tensor(rng.uniform(2.0, 4.0, (2, 18)))
    attributes = torch.tensor(rng.normal(size=(1, 18, 2)))
    both = np.concatenate([triangles, triangles + 9]).astype(np.int32)
    fragments = rasterise(vertices.numpy(), depth.numpy(), both, SIZE, SIZE, perspective=perspective)
    return *(value.requires_grad_() for value in (vertices, depth, attributes)), both, fragments


@pytest.mark.parametrize("perspective", [True, False])
def test_values_equal_those_without_gradients(perspective: bool) -> None:
    vertices, depth, attributes, triangles, fragments = scene(3, perspective)
    found = interpolate(fragments, vertices, depth, triangles, attributes, perspective=perspective)
    expected = plain.interpolate(fragments, attributes.detach().numpy(), triangles)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("perspective", [True, False])
def test_gradients_inside_triangles_equal_finite_differences(perspective: bool) -> None:
    vertices, depth, attributes, triangles, fragments = scene(5, perspective)

    def render(vertices, depth, attributes):
        return interpolate(fragments, vertices, depth, triangles, attributes, perspective=perspective)

    assert fragments.covered.sum() > 60
    assert torch.autograd.gradcheck(render, (vertices, depth, attributes), fast_mode=True)


def test_gradients_of_corner_attributes_equal_finite_differences() -> None:
    vertices, depth, _, triangles, fragments = scene(6)
    corners = np.arange(triangles.size, dtype=np.int32).reshape(-1, 3)
    attributes = torch.tensor(np.random.default_rng(0).normal(size=(2, triangles.size, 3)), requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *given: interpolate(fragments, given[0], given[1], triangles, given[2], corners),
        (vertices, depth, attributes),
        fast_mode=True,
    )


def test_gradients_at_silhouettes_equal_finite_differences() -> None:
    vertices, depth, attributes, triangles, fragments = scene(7)
    neighbours = neighbours_of(triangles)

    def render(vertices, depth, attributes):
        picture = interpolate(fragments, vertices, depth, triangles, attributes)
        return antialias(picture, fragments, vertices, triangles, neighbours)

    assert torch.autograd.gradcheck(render, (vertices, depth, attributes), fast_mode=True)
    sharp = interpolate(fragments, vertices, depth, triangles, attributes)
    assert ((render(vertices, depth, attributes) - sharp).abs().amax(-1) > 1e-6).sum() > 20


def test_gradient_bytes_on_any_threads() -> None:
    """Same input gives the same gradient bytes on any number of threads."""

    def gradient(threads: int) -> bytes:
        vertices, depth, attributes, triangles, fragments = scene(8)
        picture = interpolate(fragments, vertices, depth, triangles, attributes, num_threads=threads)
        blended = antialias(picture, fragments, vertices, triangles, neighbours_of(triangles), num_threads=threads)
        blended.square().sum().backward()
        return b"".join(given.grad.numpy().tobytes() for given in (vertices, depth, attributes))

    assert gradient(1) == gradient(1) == gradient(3)


def square(side: int, left: float, top: float, size: float) -> tuple[torch.Tensor, np.ndarray]:
    vertices, triangles = grid_mesh(side, 0.0, 1.0, 0.0, 0)
    return torch.tensor(vertices, dtype=torch.float64) * size + torch.tensor([left, top], dtype=torch.float64), triangles


def white(vertices: torch.Tensor, triangles: np.ndarray, size: int = 24) -> torch.Tensor:
    """A white surface on black, antialiased."""
    depth = torch.ones(vertices.shape[:2], dtype=torch.float64)
    fragments = rasterise(vertices.detach().numpy(), depth.numpy(), triangles, size, size)
    picture = torch.tensor(fragments.covered[..., None], dtype=torch.float64)
    return antialias(picture, fragments, vertices, triangles, neighbours_of(triangles))


@pytest.mark.parametrize("side", [2, 40])
def test_square_area_any_tessellation(side: int) -> None:
    """The sum of a white square is its area however fine its triangles."""
    for shift in (0.05, 0.3, 0.5, 0.77):
        vertices, triangles = square(side, 4.0 + shift, 5.0 + 0.6 * shift, 12.4)
        rows = white(vertices, triangles)[0, 8:14, :, 0].sum(1)
        np.testing.assert_allclose(rows.numpy(), 12.4, atol=1e-9)
        vertices.requires_grad_()
        white(vertices, triangles)[0, 10, :, 0].sum().backward()
        assert vertices.grad is not None
        moved_left = vertices.grad[0, vertices[0, :, 0] < 5.0, 0].sum()
        moved_right = vertices.grad[0, vertices[0, :, 0] > 16.0, 0].sum()
        np.testing.assert_allclose([moved_left.item(), moved_right.item()], [-1.0, 1.0], atol=1e-9)


def test_fold_is_a_silhouette() -> None:
    """A fold in front of its own mesh is a silhouette."""
    # One strip: it runs to the right, turns round at x = 9.3 and comes back behind itself.
    vertices = torch.tensor([[[2.2, 1.0], [2.2, 9.0], [9.3, 1.0], [9.3, 9.0], [0.4, 1.0], [0.4, 9.0]]], dtype=torch.float64)
    triangles = np.array([[0, 1, 2], [2, 1, 3], [2, 3, 4], [4, 3, 5]], np.int32)
    depth = torch.tensor([[1.0, 1.0, 1.0, 1.0, 3.0, 3.0]], dtype=torch.float64)
    fragments = rasterise(vertices.numpy(), depth.numpy(), triangles, 12, 12)
    picture = torch.tensor(
        np.where(fragments.triangle_index < 0, 0.0, np.where(fragments.triangle_index < 2, 1.0, 0.25))[..., None]
    )
    blended = antialias(picture, fragments, vertices, triangles, neighbours_of(triangles))[0, 5, :, 0].numpy()
    np.testing.assert_allclose(blended[[9, 10]], [0.8, 0.0], atol=1e-9)  # the fold, against black
    np.testing.assert_allclose(blended[2], 0.25 + 0.75 * 0.3, atol=1e-9)  # the border, against the strip behind


def test_square_found_from_picture() -> None:
    """A square finds its place from its picture alone."""
    goal, triangles = square(12, 7.3, 6.4, 9.0)
    wanted = white(goal, triangles)
    start, _ = square(12, 5.9, 7.2, 9.0)
    move = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([move], lr=0.1)
    for step in range(80):
        optimiser.param_groups[0]["lr"] = 0.1 if step < 55 else 0.02
        optimiser.zero_grad()
        (white(start + move, triangles) - wanted).square().sum().backward()
        optimiser.step()
    np.testing.assert_allclose(move.detach().numpy(), [1.4, -0.8], atol=0.02)


def test_neighbours_across_opposite_edge() -> None:
    """Neighbours lie across the edge opposite to each corner."""
    triangles = np.array([[0, 1, 2], [2, 1, 3], [3, 1, 4], [1, 3, 5]], np.int32)
    expected = [[1, -1, -1], [-1, -1, 0], [-1, -1, -1], [-1, -1, -1]]  # three triangles meet at 1-3
    np.testing.assert_array_equal(neighbours_of(triangles), expected)


def test_fragments_of_another_mesh_are_refused() -> None:
    vertices, depth, attributes, triangles, fragments = scene(3)
    with pytest.raises(ValueError, match="fragments"):
        interpolate(fragments, vertices, depth, triangles[:2], attributes)
    with pytest.raises(ValueError, match="don't fit"):
        interpolate(fragments, vertices[:1], depth[:1], triangles, attributes)
    with pytest.raises(ValueError, match="fragments"):
        antialias(torch.zeros(2, SIZE, SIZE, 1), fragments, vertices, triangles[:2], neighbours_of(triangles[:2]))
    with pytest.raises(ValueError, match="corners"):
        interpolate(fragments, vertices, depth, triangles, attributes, triangles[:2])
    with pytest.raises(ValueError, match="don't fit"):
        antialias(torch.zeros(2, 3, 3, 1), fragments, vertices, triangles, neighbours_of(triangles))
