"""The operator: one process that starts every part, keeps it alive, and stops it gracefully.

It holds no logic of its own: what is decided is `controller.lifecycle.reconcile`, how is `controller.runtime`.
"""
