"""Engine `kubernetes` of batches: one Indexed Job for each 10,000 rows, one pod for each row.

settings.py    settings of an operator: image, resources, profiles; the chart writes them to a ConfigMap
jobs.py        the Jobs of a batch, their status, and why pods wait and ended (pure)
cluster.py     calls of the Kubernetes API, each with a time limit, their errors, and the watch of Jobs
engine.py      submit, snapshot, watch, cancel, retry
"""

from gateway.batch.kubernetes.engine import CONFIG_MAP, KubernetesEngine, Snapshot, Submitted, open_engine, open_engine_of, was_sent

__all__ = ["CONFIG_MAP", "KubernetesEngine", "Snapshot", "Submitted", "open_engine", "open_engine_of", "was_sent"]
