"""Engine `kubernetes` of batches: one Indexed Job for each 10,000 rows, one pod for each row.

settings.py    what an operator sets: image, resources, profiles; the chart writes them to a ConfigMap
job_plan.py    which rows go into which Job (pure)
job_spec.py    the Job of some rows (pure)
job_state.py   what the status of a Job says about rows (pure)
pod_state.py   why pods wait, and why they ended (pure)
locations.py   which files of the rows pods cannot reach (pure)
cluster.py     calls of the Kubernetes API, each with a time limit
refusals.py    the API's errors as errors of dubstage, with the remedy
follow.py      watch of the Jobs over lost connections and expired versions
engine.py      submit, snapshot, watch, cancel, retry
"""

from gateway.batch.kubernetes.engine import KubernetesEngine, Snapshot, Submitted, open_engine, open_engine_of, was_sent

__all__ = ["KubernetesEngine", "Snapshot", "Submitted", "open_engine", "open_engine_of", "was_sent"]
