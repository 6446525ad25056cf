"""LipSDP-Neuron as a semidefinite program: the structured solver, and CVXPY as its oracle."""
