"""HTTPS as the operator serves it: a server that no client holds up, and certificates that renew themselves."""
