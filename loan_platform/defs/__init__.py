"""Instances: the portfolios, and what is bound once for all of them.

Here: YAML of portfolios, resources, location-wide sensors. Not here: any logic.
"""
