"""Training of the temporal-warp network, and its export."""
