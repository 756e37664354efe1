"""Training of the renderers: what the methods share, the perceptual network, export, and the tools that compare renderers."""
