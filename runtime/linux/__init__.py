"""Linux, one function per system call.

Every function is named after its call, takes what the call takes, and raises `OSError` and nothing else. No
convenience and no policy here: what is done in which order is `runtime.sandbox`'s business.
"""
