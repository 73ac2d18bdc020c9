"""Stands for TRex's library in the check of the profiles."""
