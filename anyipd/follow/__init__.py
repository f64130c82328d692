"""Followers: they consume Views and nothing else."""
