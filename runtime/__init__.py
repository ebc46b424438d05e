"""One host: store, images, containers, networks, volumes, registry; and the words all rooms share (errors, events, cancel, spans)."""
