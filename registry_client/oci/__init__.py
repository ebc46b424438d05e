"""The nouns of the OCI image specification: digests, descriptors, platforms, configs, manifests.

Pure values; nothing here opens a file or a socket. A manifest or config that came from outside keeps its
exact bytes, because they are its identity.
"""
