"""The motion predictor `headpose`: speech in; expression coefficients, head poses and blinks out."""
