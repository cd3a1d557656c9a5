"""The launching half: GRPOJob in, ConfigMap and JobSet out."""

__version__ = "0.1.0"
