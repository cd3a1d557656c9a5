"""The engine of a controller: client, watches, queue, workers, election, events, metrics. It knows no GRPOJob.

What is watched and what is decided comes in as data and functions; the modules do not know each other beyond the layers
in pyproject.toml.
"""
