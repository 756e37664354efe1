"""A dub from files to a file: the order of the passes, scenes, the result, the estimate, and the key of the job."""
