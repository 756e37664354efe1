"""Shared code of servers: gRPC, health, limits, settings, telemetry, retries."""
