"""Training of the render stage; never imported by serving."""
