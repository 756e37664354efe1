"""A mark of 64 bits in the luma of dubbed mouths: payload, spreading, embedding and detection. Pure algorithms on arrays."""
