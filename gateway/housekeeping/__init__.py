"""Files and artefacts of jobs: lists, and removal by age, by size or by name."""
