"""Last step of the export of a run: constants, sheet and card beside the exported networks, and delivery of all files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.common.store.tensor_bytes import NamedArrays
from services.motion.export_spec import Delivery, digests, write_constants, write_sheet
from services.motion.train.basis import check_style_basis
from services.motion.train.run_files import origin_of, read_best


@dataclass(frozen=True, kw_only=True, slots=True)
class RunExport:
    """A finished run that is exported.

    Attributes:
        run: folder of the run.
        name: name of the network on the command line.
        kept: network and constants of the run.
        constants_file: name of the file of constants.
        sheet: name of the sheet and of the card's copy, without endings.
    """

    run: Path
    name: str
    kept: NamedArrays
    constants_file: str
    sheet: str

    def deliver(self, delivery: Delivery, networks: Sequence[Path], measured: Mapping[str, Any], **numbers: object) -> list[Path]:
        """Write the constants and the sheet, copy the card, and deliver all files; return their paths.

        Args:
            delivery: folder with the exported networks.
            networks: paths of the ONNX files. The digest of the first is the version.
            measured: entries of the sheet: what was exported, and how far the files differ from PyTorch.
            numbers: further metadata of the constants.
        """
        folder = delivery.folder
        constants = folder / self.constants_file
        facts = {
            **write_constants(constants, networks[0], self.kept, **numbers),
            "training": origin_of(self.run, self.name, folder / f"{self.sheet}.card.md"),
            **measured,
            "files": digests([*networks, constants]),
        }
        write_sheet(folder / f"{self.sheet}.json", facts)
        return delivery.deliver()


def open_run(run: Path, out: Path, *, name: str, constants_file: str, sheet: str) -> RunExport:
    """Return a run to export.

    Args:
        run: folder of the run.
        out: folder of weights. Its landmark basis must be the basis that the run was trained on.
        name: name of the network on the command line.
        constants_file: name of the file of constants.
        sheet: name of the sheet and of the card's copy, without endings.

    Raises:
        InvalidRequest: the run is not finished, or the folder of weights holds another landmark basis.
    """
    kept = read_best(run, name)
    check_style_basis(kept, out, name)
    return RunExport(run=run, name=name, kept=kept, constants_file=constants_file, sheet=sheet)
