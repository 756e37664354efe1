"""The toy in the motion stage."""
