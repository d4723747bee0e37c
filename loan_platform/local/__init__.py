"""Runs the platform's processes on this machine, and says what keeps them from running.

Here: starting, watching and stopping processes, the Dagster instance's files, the doctor, the demo.
Not here: what any of those processes does.
"""
