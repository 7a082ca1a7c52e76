"""The picture of the Grafana dashboard, from what a real Prometheus scraped of a site with four workers.

`python -m tests.dashboard` starts the site and Prometheus, lets clients use the site for two minutes, runs
every expression of docs/grafana/cacheapp.json, fails if one of them finds nothing, and keeps what they
found in docs/grafana/observed.json. `make pictures` draws that in the layout of the dashboard.

expressions        panels and their expressions, with values for Grafana's variables (pure)
prometheus         the server, and its API
traffic            what happens on the site while it is scraped
kept               what was found, and the picture of it
drawing            panels as SVG (pure)
schema             the dashboard against Grafana's types
site_settings, site_urls   the site
"""
