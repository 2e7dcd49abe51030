"""Presets: functions that return a Config."""
