"""Differentially private training: DP-SGD to a budget, and what shows that it holds."""
