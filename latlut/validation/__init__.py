"""How far estimates hold: whole networks measured, a calibration fitted, errors explained."""
