"""The workloads: what clients do at the same time, and how it is judged what they saw.

Each is a function of a `Run` that returns a finding for each property, and the functions beside it
are what runs in the clients.
"""
