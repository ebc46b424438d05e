"""The messages of BuildKit's services, as far as we read or write them. Names are ours, numbers are BuildKit's (0.25)."""
