"""The 3D morphable face model and what goes with it: rotations, cameras, light, normals, landmark correspondences.

Every model lives in head space (docs/coordinates.md): x to the image's right, y down, z away from the camera, crop pixels.
Functions take numpy arrays or torch tensors and answer in kind; torch is imported only where tensors come in, so a stage without
torch can use them.
"""
