"""The 3D morphable face model, rotations, cameras, light, normals, and the rasteriser.

Every model is in head space (docs/coordinates.md): x to the image's right, y down, z away from the camera, crop pixels.
"""
