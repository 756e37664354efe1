"""What every server shares: gRPC, health, limits, settings, telemetry, retries."""
