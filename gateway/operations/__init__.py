"""Long work of the gateway: what was asked for, how far it is, and what came of it, through restarts."""
