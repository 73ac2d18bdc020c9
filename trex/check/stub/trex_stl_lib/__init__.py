"""Stands for TRex's stateless library in the check of the profiles."""
