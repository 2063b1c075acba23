"""Differentially private training: any net, to an (epsilon, delta) budget that can be shown."""
