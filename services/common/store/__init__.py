"""The artefact store, and arrays as bytes.

An artefact is what a stage or an enrolment makes and passes on by its reference: a bank, a style, a network. A blob is the bytes of
an artefact in the store, under their SHA-256. Equal artefacts are one blob. The gateway's database counts blobs and deletes them.
"""
