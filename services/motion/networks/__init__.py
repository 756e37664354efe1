"""Networks of the motion stage."""
