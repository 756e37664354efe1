"""What every stage shares: the chassis (server, errors, settings, telemetry, artefacts) and geometry."""
