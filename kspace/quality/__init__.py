"""Judges of what was measured, and the rules that stop a scan on their word."""
