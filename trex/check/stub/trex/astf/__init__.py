"""Stands for TRex's stateful library in the check of the profiles."""
