"""Batches: many shots, each dubbed once, by workers of this machine, of a Kubernetes cluster or of a farm manager."""
