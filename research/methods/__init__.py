"""One package a method: how its networks learn from a training set, and how they are exported for serving."""
