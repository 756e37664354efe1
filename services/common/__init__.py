"""Code that several stages and the gateway share, in packages. A package imports only packages before it in this list:

    server      servers, clients, settings, limits, telemetry
    store       artefacts and their arrays as bytes
    geometry    face models, cameras, light, rasteriser
    face        landmarks, crops, drawing, mouth bank, identities
    wire        messages of the contracts to and from our own types, and the order of the phones

errors.py, methods.py, files.py, locks.py and array_types.py stand before all packages.
"""
