"""Training of the motion stage's networks; serving never imports it."""
