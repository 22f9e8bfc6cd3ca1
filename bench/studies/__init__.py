"""Uses of jobs beyond a run: tuning, calibration, preflight, replay and checks of a method."""
