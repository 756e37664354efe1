"""Commands of `dubstage` for developers of networks: training sets, trainings, exports and evaluations."""
