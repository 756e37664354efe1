"""Networks of the texture stage."""
