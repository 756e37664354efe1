"""Faces: landmarks, crops, drawing, identities, the mouth bank, and files of face models."""
