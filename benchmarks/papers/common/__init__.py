"""Shared by the replications: sizes, claims, pages, data, networks and their training."""
