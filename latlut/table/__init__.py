"""Latency tables: one identity, one SQLite file. No other room speaks SQL."""
