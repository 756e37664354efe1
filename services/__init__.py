"""The stage services of dubstage and the code they share."""

import os
import sys

from services.common.server.resources import cpu_flags

# Before NumPy and OpenCV are loaded, which read these once. Their own threads are for large arrays; on the small ones here they
# take ten times the processor time, and how a BLAS splits a sum over threads shows in the last bits of the result.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OPENCV_FOR_THREADS_NUM"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Threads of PyTorch look for work a thousand times, some microseconds, before they sleep. A personalisation alone then takes .83 of
# the time, and two at once on two cores take 1.04. If they looked for longer, two at once would take up to four times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Before ONNX Runtime is loaded, whose wheels report their use to Microsoft otherwise and write a device id into the temporary
# folder. Nothing that runs here reports to anybody.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# OpenBLAS has other kernels, and other last bits, for every processor. One kernel for all that can run it takes away the largest
# difference between machines; others remain (docs/determinism.md).
if {"avx2", "fma"} <= cpu_flags():
    os.environ["OPENBLAS_CORETYPE"] = "Haswell"
if "numpy" in sys.modules:
    # A program that uses dubstage as a library loaded NumPy first: its BLAS has read the variables already. The kernel stays what
    # it is; the number of threads, which changes more bits, can still be set.
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="blas")
