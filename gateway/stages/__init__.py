"""The five stages as the gateway sees them: one interface, in this process or behind gRPC, by the same contracts."""
