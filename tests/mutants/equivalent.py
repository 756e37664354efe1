"""Mutants that no test can tell from the product, with the reason. The sample leaves them out."""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutants.mutations import Mutant


@dataclass(frozen=True)
class Equivalent:
    """A mutant, named by what it changes.

    Attributes:
        path: file, relative to the checkout.
        code: the line, without the spaces around.
        before: the changed expression, as `ast.unparse` writes it.
        after: what it became.
        reason: why no test can tell.
    """

    path: str
    code: str
    before: str
    after: str
    reason: str

    def names(self, mutant: Mutant) -> bool:
        """Return whether this is the mutant."""
        return (self.path, self.code, self.before, self.after) == (mutant.path, mutant.code, mutant.before, mutant.after)


EQUIVALENT = (
    Equivalent(
        "gateway/batch/kubernetes/cluster.py",
        "quick = not events and clock() - begun < timing.first_s",
        "clock() - begun < timing.first_s",
        "clock() - begun <= timing.first_s",
        "two readings of a clock that counts nanoseconds are never so far apart to the nanosecond",
    ),
    Equivalent(
        "gateway/media/pictures.py",
        "if offset < 0:",
        "offset < 0",
        "offset <= 0",
        "a JPEG picture begins with another marker than the one that is sought, so the offset is never 0",
    ),
    Equivalent(
        "services/common/face/loaders/files.py",
        'return np.asarray(np.einsum("ij,vjk->vik", turn, basis, optimize=True), np.float32)',
        "True",
        "False",
        "it chooses the order of the products, and changes their last bits at most",
    ),
    Equivalent(
        "services/common/geometry/rasterise_pytorch3d.py",
        "kept &= area < 0.0",
        "area < 0.0",
        "area <= 0.0",
        "triangles without area are not kept before",
    ),
    Equivalent(
        "services/common/server/server.py",
        "late = [request for request, (_, end) in self._open.items() if now > end]",
        "now > end",
        "now >= end",
        "two readings of a clock that counts nanoseconds are never equal",
    ),
    Equivalent(
        "services/motion/head_motion.py",
        "angles = np.remainder(poses[:, :3] - reference[:3] + np.pi, 2.0 * np.pi) - np.pi",
        "poses[:, :3] - reference[:3] + np.pi",
        "poses[:, :3] - reference[:3] - np.pi",
        "whole turns change nothing",
    ),
    Equivalent(
        "services/motion/head_motion.py",
        "return float(np.sqrt(max(now, 1e-9))), float(np.sqrt(max(2.0 * (now - next_one), 1e-12)))",
        "1e-09",
        "2e-09",
        "it keeps a signal that never moves from a division by zero, and such a signal stays zero",
    ),
)
