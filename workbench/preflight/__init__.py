"""Preflight: what can be known from config and headers, before a host is started."""
