"""The render stage: the final mouth picture of a frame from its masked background and a warped texture."""
