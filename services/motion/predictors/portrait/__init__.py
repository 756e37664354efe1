"""Motion predictor `portrait`: the mouth of the speech map, and the head poses of the headpose paper."""
