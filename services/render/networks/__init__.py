"""Networks of the render stage."""
