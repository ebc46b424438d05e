"""Containers of this host: what was asked (spec), how it is started (config), who watches it (shim), what became of it."""
