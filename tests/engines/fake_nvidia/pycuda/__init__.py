"""Stands for pycuda in tests."""
