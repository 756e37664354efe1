"""The modules that a process of the motion stage loads."""

import subprocess
import sys


def test_serving_loads_no_code_of_training_and_export() -> None:
    code = (
        "import sys, services.motion.__main__; "
        "print([name for name in sys.modules if name in ('torch', 'onnx') or '.train' in name and name.startswith('services.')"
        " or name.startswith('services.motion') and name.endswith(('.export', '.export_spec', '.network'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
