"""The render stage's networks on NVIDIA Triton: model repository, model file, installation and start of a server."""
