"""Processes, the instance, the doctor, the containers."""
