"""The default face model, identities of a training set, and conversions for the face stage."""
