"""Every claim of the article as an experiment: measured on real processes, judged, drawn.

Imports nothing, as the timed code also runs under interpreters that have no Django.
"""
