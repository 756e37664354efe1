"""Timelines, deliveries, production trackers and farm managers: connections with the programs of studios."""
