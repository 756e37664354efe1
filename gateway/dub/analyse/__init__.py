"""Analysis of footage: tracked faces, shots, the face that is meant, and the frames that are dubbed."""
