"""Footage frames as backgrounds for predicted head motion."""
