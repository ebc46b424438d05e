"""What software is in a root file system, found by reading what package managers wrote down there (B-16).

Nothing of the root is run. Every file is opened below the root, whatever links say, and of limited size; what cannot be
read is told in a note, never guessed. The same files give the same list.
"""
