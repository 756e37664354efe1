"""Long work of the gateway: requests, progress and results, which survive restarts."""
