"""The stage services of dubstage and the chassis they share."""

import os

# Before NumPy and OpenCV are loaded, which read these once. Their own threads are for large arrays; on the small ones here they
# take ten times the processor time, and how a BLAS splits a sum over threads shows in the last bits of the result.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OPENCV_FOR_THREADS_NUM"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
